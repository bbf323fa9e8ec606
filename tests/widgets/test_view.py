"""The widgets, clicked as a front end does it, without a front end."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_apptainer.widgets.context import PanelContext
from jupyter_apptainer.widgets.view import PanelView

# Slow, and the same for all.
pytestmark = pytest.mark.root

DEADLINE_S = 60


@pytest.fixture
def view(context: PanelContext) -> Iterator[PanelView]:
    shown = PanelView(context, pause_after_s=3600)
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
