"""The pages of the panel without widgets, from real images, tasks and overlays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_apptainer.cli.main import build_parser
from jupyter_apptainer.errors import SpecError
from jupyter_apptainer.gpu import Sampler
from jupyter_apptainer.gpu.read import read_gpus
from jupyter_apptainer.overlays.manage import create_overlay
from jupyter_apptainer.tasks.model import TaskSpec
from jupyter_apptainer.tasks.start import start_task
from jupyter_apptainer.tasks.stop import cancel_task
from jupyter_apptainer.widgets.context import IN_CONTAINER, PanelContext, find_context
from jupyter_apptainer.widgets.front.markup import render_facts, render_html, render_page, render_text
from jupyter_apptainer.widgets.front.model import Bar, Form, Row, Section, Words, filter_rows
from jupyter_apptainer.widgets.front.pictures import draw_bar
from jupyter_apptainer.widgets.front.source import TITLES
from jupyter_apptainer.widgets.loader import load_all, load_section
from jupyter_apptainer.widgets.panel import panel
from jupyter_apptainer.widgets.sections.gpu import build_gpu_section
from tests.gpu.world import GIB, World, make_card

# Slow, and the same for all.
pytestmark = pytest.mark.root


def load(name: str, context: PanelContext) -> Section:
    return load_section(name, context, Sampler())


def find_form(section: Section, label: str) -> Form:
    return next(form for form in section.forms if form.label == label)


def check_words(words: Words) -> None:
    """The command line accepts what the panel would run."""
    assert build_parser(words[0]).parse_args(list(words)).func


@pytest.fixture
def overlay(context: PanelContext) -> Path:
    from jupyter_apptainer.engine.locate import get_engine

    context.places.overlays.mkdir(parents=True)
    path = context.places.overlays / "extra.img"
    create_overlay(get_engine(), str(path), 64, os.environ)
    return path


# --- what is there, and what can be done with it


def test_images_are_listed_with_what_can_be_done(context: PanelContext) -> None:
    section = load("images", context)
    (row,) = section.rows
    assert row.label == "starter.sif"
    actions = {action.label: action for action in row.actions}
    assert list(actions) == ["Inspect", "Packages", "Recipe", "Remove"]
    assert actions["Remove"].question == f"Delete {row.key}?"
    for action in row.actions:
        assert not action.reason
        check_words(action.words)


def test_an_image_of_a_kernel_is_not_removed(context: PanelContext) -> None:
    from jupyter_apptainer.kernels.kernelspecs import add_kernelspec
    from jupyter_apptainer.kernels.spec import parse_container_spec

    image = str(context.places.images / "starter.sif")
    add_kernelspec("lab", parse_container_spec({"image": image}))
    (row,) = load("images", context).rows
    remove = next(action for action in row.actions if action.label == "Remove")
    assert remove.reason == "it is the image of the kernel lab"
    assert "lab" in row.cells


def test_forms_about_images_make_command_lines(context: PanelContext, tmp_path: Path) -> None:
    section = load("images", context)
    key = section.rows[0].key
    pull = find_form(section, "Pull").build({"uri": " docker://python:3.12-slim ", "out": "", "plain": True}, "")
    assert pull == ("image", "pull", "--detach", "--no-https", "docker://python:3.12-slim")
    recipe = "Bootstrap: docker\nFrom: debian"
    values = {"kind": "definition file", "recipe": recipe, "path": "", "out": str(tmp_path / "new image.sif")}
    build = find_form(section, "Build").build(values, "")
    assert build[:4] == ("image", "build", "--detach", str(tmp_path / "new image.sif"))
    assert build[4] == "--def"
    # It is read by a task, and again when that is repeated.
    assert Path(build[5]).read_text() == recipe + "\n"
    assert Path(build[5]).stat().st_mode & 0o777 == 0o600
    kernel = find_form(section, "Make a kernel").build({"name": "lab", "options": "--memory 4G --env 'A=b c'"}, key)
    assert kernel == ("kernel", "add", "lab", key, "--memory", "4G", "--env", "A=b c")
    for words in (pull, build, kernel):
        check_words(words)


@pytest.mark.parametrize(
    ("label", "values", "word"),
    [
        ("Pull", {"uri": "", "out": "", "plain": False}, "expected the image's name"),
        ("Pull", {"uri": "--force", "out": "", "plain": False}, "--force"),
        ("Build", {"kind": "Dockerfile", "recipe": "", "path": "", "out": "a.sif"}, "not both"),
        ("Build", {"kind": "Dockerfile", "recipe": "FROM a", "path": "b", "out": "a.sif"}, "not both"),
        ("Build", {"kind": "Dockerfile", "recipe": "FROM a", "path": "", "out": " "}, "new image"),
        ("Make a kernel", {"name": "a", "options": "--env 'A"}, "quotation"),
    ],
    ids=["no name", "an option for a name", "no recipe", "two recipes", "no file", "quotation marks"],
)
def test_a_form_that_cannot_be_says_why(
    context: PanelContext, label: str, values: dict[str, str | bool], word: str
) -> None:
    with pytest.raises(SpecError, match=word):
        find_form(load("images", context), label).build(values, "x.sif")


def test_overlays_are_drawn_and_can_be_changed(context: PanelContext, overlay: Path) -> None:
    section = load("overlays", context)
    (row,) = section.rows
    assert row.key == str(overlay)
    (bar,) = section.bars
    assert bar.fraction is not None
    assert "% of 64 MiB used" in bar.text
    assert not [action.reason for action in row.actions if action.reason]
    lines = [action.words for action in row.actions]
    lines.append(find_form(section, "Grow").build({"size": "2G"}, row.key))
    lines.append(find_form(section, "Freeze").build({"target": "a.sqsh", "image": ""}, row.key))
    lines.append(find_form(section, "Create").build({"file": "~/b.img", "size": "1G"}, ""))
    for words in lines:
        check_words(words)


@pytest.fixture
def task(context: PanelContext) -> Iterator[str]:
    """A task that runs until it is cancelled."""
    spec = TaskSpec(kind="test", title="sleep <now>", work="tests.widgets.works:wait", args={}, cwd=os.getcwd())
    environ = {**os.environ, "PYTHONPATH": os.getcwd()}
    started = start_task(context.places, spec, environ=environ)
    yield started.task.id
    cancel_task(context.places, started.task.id)


def test_tasks_are_shown_and_what_is_over_cannot_be_cancelled(context: PanelContext, task: str) -> None:
    (row,) = load("tasks", context).rows
    reasons = {action.label: action.reason for action in row.actions}
    assert (row.key, reasons["Cancel"], reasons["Log"]) == (task, "", "")
    assert reasons["Repeat"] == "it still runs"
    for action in row.actions:
        check_words(action.words)
    cancel_task(context.places, task)
    section = load("tasks", context)
    reasons = {action.label: action.reason for action in section.rows[0].actions}
    assert (reasons["Cancel"], reasons["Repeat"]) == ("it is over", "")
    assert section.rows[0].cells[1] == "cancelled"
    assert not section.bars


def test_gpus_are_bars_and_rows(world: World) -> None:
    world.show(
        make_card(0, utilisation=43, memory=[12 * GIB, 40 * GIB], processes=[[os.getpid(), 9 * GIB]]),
        make_card(1, utilisation=None, memory=[39 * GIB, 40 * GIB]),
    )
    section = build_gpu_section(read_gpus(), Sampler())
    assert [bar.fraction for bar in section.bars] == [0.43, 0.3, None, 0.975]
    assert "n/a" in section.bars[2].text
    (row,) = section.rows
    assert row.cells[1:5] == ("0", str(os.getpid()), "9.0 GiB", "n/a")
    (stop,) = row.actions
    assert "owns it" in stop.reason
    check_words(stop.words)


def test_inside_a_container_reading_is_possible_and_acting_is_not(
    context: PanelContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPTAINER_CONTAINER", "/images/lab.sif")
    inside = find_context()
    assert inside.obstacle == IN_CONTAINER
    section = load("images", inside)
    assert {form.reason for form in section.forms} == {IN_CONTAINER}
    reasons = {action.label: action.reason for action in section.rows[0].actions}
    assert reasons == {"Inspect": "", "Packages": IN_CONTAINER, "Recipe": "", "Remove": IN_CONTAINER}
    assert "/images/lab.sif" in load("kernel", inside).notes[0]


# --- how it is shown without widgets


def test_a_page_has_all_sections_and_no_stranger_writes_into_it(context: PanelContext, task: str) -> None:
    sampler = Sampler()
    sampler.look()
    sections = load_all(context, sampler)
    assert [section.name for section in sections] == list(TITLES)
    page = render_page(sections)
    assert "sleep &lt;now&gt;" in page
    assert "<now>" not in page
    assert page.count("<h3>") == len(TITLES)
    text = render_text(sections)
    assert "starter.sif" in text
    assert "sleep <now>" in text


def test_outside_of_a_notebook_the_panel_is_a_text_and_a_page(context: PanelContext) -> None:
    shown = panel()
    assert "Images\n======" in repr(shown)
    assert "starter.sif" in shown._repr_html_()


def make_section(**changes: object) -> Section:
    rows = (
        Row(key="1", cells=("torch.sif", "docker://pytorch"), facts=(("file", "/images/torch.sif"),)),
        Row(key="2", cells=("lab.sif", "<b>local</b>")),
    )
    return replace(Section(name="images", title="Images", headings=("Image", "From"), rows=rows), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "keys"),
    [("", ["1", "2"]), ("TORCH", ["1"]), ("lab local", ["2"]), ("images/torch pytorch", ["1"]), ("nothing", [])],
)
def test_a_filter_takes_rows_that_have_all_words(text: str, keys: list[str]) -> None:
    assert [row.key for row in filter_rows(make_section(), text)] == keys


def test_a_table_can_be_read_out() -> None:
    section = make_section(caption="All images")
    html = render_html(section, section.rows[:1], "1")
    assert "<caption>All images (1 not shown)</caption>" in html
    assert '<th scope="col">Image</th>' in html
    assert '<tr class="jpa-chosen"><th scope="row">torch.sif</th>' in html
    assert "&lt;b&gt;local" in render_html(section)
    assert '<th scope="row">file</th><td>/images/torch.sif</td>' in render_facts(section.rows[0])


@pytest.mark.parametrize(
    ("bar", "label", "classes"),
    [
        (Bar(label="GPU 0", fraction=0.5, text="50 %"), "GPU 0: 50 %", 'class="jpa-bar"'),
        (Bar(label="GPU 0", fraction=None, text="n/a"), "GPU 0: n/a", 'class="jpa-bar"'),
        (Bar(label="disk", fraction=0.95, text="95 %"), "disk: 95 %", 'class="jpa-bar jpa-full"'),
        (
            Bar(label="GPU 0", fraction=0.5, text="50 %", history=(0.1, 0.9, None, 0.2, 0.5)),
            "GPU 0: 50 %; at most 90 % lately",
            "jpa-line",
        ),
    ],
    ids=["half", "not known", "nearly full", "history with a gap"],
)
def test_a_picture_says_in_words_what_it_shows(bar: Bar, label: str, classes: str) -> None:
    picture = draw_bar(bar)
    assert f'role="img" aria-label="{label}"' in picture
    assert classes in picture
    assert picture.count("<polyline") == (2 if bar.history else 0)
