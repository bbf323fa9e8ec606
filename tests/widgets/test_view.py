"""The widgets, clicked as a front end does it, without a front end."""

from __future__ import annotations

import ast
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_apptainer.gpu import Sampler
from jupyter_apptainer.widgets.context import PanelContext
from jupyter_apptainer.widgets.folders import list_entries
from jupyter_apptainer.widgets.front.fields import PathField
from jupyter_apptainer.widgets.front.model import Field, Form, Section
from jupyter_apptainer.widgets.front.page import Page
from jupyter_apptainer.widgets.front.view import PanelView
from jupyter_apptainer.widgets.loader import HostSource
from jupyter_apptainer.widgets.serve import read_code
from tests.gpu.world import World, make_card

# Slow, and the same for all.
pytestmark = pytest.mark.root

DEADLINE_S = 60


@pytest.fixture
def view(context: PanelContext) -> Iterator[PanelView]:
    shown = PanelView(HostSource(context, Sampler(), Sampler(is_all=True)), pause_after_s=3600)
    yield shown
    shown.close()
    for thread in threading.enumerate():
        if thread.name.startswith("jpa-"):
            thread.join(DEADLINE_S)


def iter_widgets(widget: Any) -> Iterator[Any]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from iter_widgets(child)


def find(view: PanelView, label: str) -> Any:
    """Return the widget that is described so."""
    return next(widget for widget in iter_widgets(view) if getattr(widget, "description", None) == label)


def read(view: PanelView) -> str:
    # A page is shown under this lock: half of one is never read.
    with view._lock:
        return "\n".join(str(widget.value) for widget in iter_widgets(view) if type(widget).__name__ == "HTML")


def wait_for(view: PanelView, text: str) -> None:
    """Wait until the panel says `text`: any of its HTML changes in a thread."""
    changed = threading.Event()
    seen: set[int] = set()
    deadline = DEADLINE_S / 0.2
    while text not in read(view):
        for widget in iter_widgets(view):
            if widget.has_trait("value") and id(widget) not in seen:
                seen.add(id(widget))
                widget.observe(lambda _: changed.set(), "value")
        changed.wait(0.2)
        changed.clear()
        deadline -= 1
        assert deadline > 0, read(view)


def test_it_looks_only_while_it_is_seen(view: PanelView) -> None:
    assert view._view_count == 0
    assert not [thread for thread in threading.enumerate() if thread.name == "jpa-panel"]
    view._view_count = 1
    wait_for(view, "in no container")
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "jpa-panel"]
    view.close()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def test_each_page_opens_and_says_that_it_is_open(view: PanelView) -> None:
    view._view_count = 1
    for title in ("Images", "Overlays", "Instances", "GPU", "Tasks"):
        find(view, title).click()
        assert find(view, f"▸ {title}").button_style == "primary"
    wait_for(view, "No task yet")


def test_what_is_asked_for_is_done_only_after_yes(view: PanelView, context: PanelContext, small_sif: Path) -> None:
    image = Path(shutil.copy(small_sif, context.places.images))
    view._view_count = 1
    find(view, "Images").click()
    wait_for(view, "small.sif")
    find(view, "Remove").click()
    assert f"Delete {image}?" in read(view)
    find(view, "No").click()
    assert f"Delete {image}?" not in read(view)
    assert image.exists()
    find(view, "Remove").click()
    find(view, "Yes, remove").click()
    wait_for(view, "Remove: done")
    assert not image.exists()


def test_a_reading_is_shown_and_a_mistake_in_a_form_is_named(view: PanelView) -> None:
    view._view_count = 1
    find(view, "Images").click()
    wait_for(view, "starter.sif")
    find(view, "Recipe").click()
    wait_for(view, "bootstrap:")
    find(view, "Pull…").click()
    find(view, "Pull").click()
    assert "expected the image&#x27;s name" in read(view)
    find(view, "Close").click()
    assert "expected the image" not in read(view)


def test_where_no_widgets_can_be_shown_there_is_a_page(view: PanelView) -> None:
    bundle = view._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "<h3>Images</h3>" in data["text/html"]
    assert "Images\n======" in data["text/plain"]


def test_what_is_sent_to_containers_needs_nothing_of_ours_and_python_39_reads_it() -> None:
    for name, source in read_code():
        tree = ast.parse(source, feature_version=(3, 9))
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) if not node.level}
        assert {each.split(".")[0] for each in names} - set(sys.stdlib_module_names) <= {"IPython", "ipywidgets"}, name
        assert all(node.level < 2 for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)), name


def test_all_gpus_of_the_machine_are_shown_on_request(
    view: PanelView, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.show(make_card(0, name="mine"), make_card(1, name="of others"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    view._view_count = 1
    find(view, "GPU").click()
    wait_for(view, "1 more on this machine, not given to you")
    assert "GPU 1 (of others)" not in read(view)
    find(view, "All GPUs of this machine, not only those given to you").value = True
    wait_for(view, "GPU 1 (of others)")
    view.close()


def test_each_widget_is_one_of_ipywidgets_own_so_no_front_end_needs_code_of_ours(view: PanelView) -> None:
    view._view_count = 1
    for title in ("Images", "Overlays", "Instances", "GPU", "Tasks"):
        find(view, title).click()
    find(view, "Overlays").click()
    wait_for(view, "No overlay yet")
    find(view, "Create…").click()
    for widget in iter_widgets(view):
        kinds = (widget._model_module, widget._view_module, widget._model_module_version)
        assert kinds == ("@jupyter-widgets/controls", "@jupyter-widgets/controls", "2.0.0")


@pytest.fixture
def page() -> Page:
    return Page("kernel", "Kernel", lambda action, on_end: None, lambda: None)


def test_a_command_line_is_shown_in_a_field_from_which_it_can_be_copied(page: Page) -> None:
    page.show_output("Command line", "apptainer run x.sif", is_to_copy=True)
    (field,) = [each for each in iter_widgets(page.widget) if type(each).__name__ == "Textarea"]
    assert (field.value, field.description) == ("apptainer run x.sif", "Command line")


def test_a_form_stays_until_it_was_good_for_something() -> None:
    ends: list[Callable[[bool], None]] = []
    page = Page("images", "Image", lambda action, on_end: ends.append(on_end), lambda: None)
    form = Form(
        label="Pull", fields=(Field(name="uri", label="Name"),), build=lambda values, key: (str(values["uri"]),)
    )
    page.show(Section(name="images", title="Images", forms=(form,)))

    def get(description: str) -> Any:
        return next(each for each in iter_widgets(page.widget) if getattr(each, "description", None) == description)

    get("Pull…").click()
    get("Name").value = "docker://a"
    get("Pull").click()
    assert get("Pull").disabled
    ends.pop()(False)
    assert (get("Name").value, get("Pull").disabled) == ("docker://a", False)
    get("Pull").click()
    ends.pop()(True)
    assert not [each for each in iter_widgets(page.widget) if getattr(each, "description", None) == "Name"]


def join_lookers() -> None:
    for thread in threading.enumerate():
        if thread.name == "jpa-panel-folders":
            thread.join(DEADLINE_S)


def test_a_folder_is_chosen_with_the_keyboard(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "c").mkdir()
    (tmp_path / "a/b/x.def").touch()
    chooser = PathField(Field(name="source", label="Folder", kind="folder"), list_entries)
    path, folders, buttons = chooser.widget.children
    into, up = buttons.children

    def wait_options(*names: str) -> None:
        join_lookers()
        assert folders.options == names

    path.value = str(tmp_path)
    wait_options("a/", "c/")
    # Each key press on the list chooses, and goes nowhere.
    for name in ("a/", "c/", "a/"):
        folders.value = name
        assert path.value == str(tmp_path)
    into.click()
    wait_options("b/")
    assert chooser.value == str(tmp_path / "a")
    up.click()
    wait_options("a/", "c/")
    path.value = str(tmp_path / "no such")
    wait_options()
    assert into.disabled


def test_a_recipe_is_chosen_and_none_is_there_until_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/lab.def").touch()
    monkeypatch.chdir(tmp_path)
    chooser = PathField(Field(name="path", label="or file", kind="file"), list_entries)
    path, files, buttons = chooser.widget.children
    take, _ = buttons.children
    assert chooser.value == ""
    for name in ("recipes/", "lab.def"):
        join_lookers()
        files.value = name
        take.click()
    assert chooser.value == str(tmp_path / "recipes/lab.def")
    join_lookers()
    assert files.options == ("lab.def",)
    path.value = ""
    join_lookers()
    assert files.options == ("recipes/",)
