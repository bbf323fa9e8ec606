"""The panel as widgets: a button for each page, one page at a time, and a line that says what became of the last click.

Nothing here waits: what is clicked runs in processes, looks in a thread, and widgets may be changed from both.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import ipywidgets

from .business import Business
from .markup import STYLE, render_message, render_page, render_text
from .model import Action
from .page import OnEnd, Page
from .pulse import Pulse
from .source import TITLES, Outcome, Source, SourceError

_INTERVALS_S = {"images": 10.0, "overlays": 5.0}
_INTERVAL_S = 2.0
_SHOWN = "▸ "
_NOUNS = {
    "kernel": "Kernel",
    "images": "Image",
    "overlays": "Overlay",
    "instances": "Instance",
    "gpu": "Process",
    "tasks": "Task",
}


class PanelView(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Shown as a cell's result. `close()` ends it; closing or clearing its cell pauses it."""

    def __init__(self, source: Source, *, pause_after_s: float) -> None:
        self._source = source
        self._lock = threading.RLock()
        self._business = Business()
        self._pulse = Pulse(self._look, self._rest, self._get_interval_s, pause_after_s, self._business.is_there)
        self._pages: dict[str, Page] = {}
        self._shown = "kernel"
        self._message = ipywidgets.HTML()
        self._tabs = {name: self._make_tab(name) for name in TITLES}
        self._body = ipywidgets.VBox()
        bar = ipywidgets.HBox(list(self._tabs.values()), layout={"flex_flow": "row wrap"})
        super().__init__([ipywidgets.HTML(value=STYLE), bar, self._message, self._body])
        self.add_class("jpa-panel")
        self._show_page("kernel")
        # From now on the front end counts its views.
        self._view_count = 0
        self.observe(self._count_views, "_view_count")

    def close(self) -> None:
        """End looks and commands, and take the widgets away. Tasks go on."""
        self._pulse.close()
        self._source.close()
        self._business.close()
        super().close()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """Called by IPython: where no widgets can be shown, a page or a text is."""
        bundle = super()._repr_mimebundle_(**options)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        if data is not None:
            # What cannot be loaded now says so in the panel.
            with suppress(SourceError):
                sections = self._source.load_all()
                data |= {"text/html": render_page(sections), "text/plain": render_text(sections)}
        return bundle

    def _count_views(self, change: Any) -> None:
        self._pulse.set_seen(bool(change["new"]))

    def _get_interval_s(self) -> float:
        return _INTERVALS_S.get(self._shown, _INTERVAL_S)

    # --- pages

    def _make_tab(self, name: str) -> Any:
        button = ipywidgets.Button(description=TITLES[name], layout={"width": "auto"})
        button.on_click(lambda _: self._open(name))
        return button

    def _open(self, name: str) -> None:
        self._show_page(name)
        self._pulse.touch()

    def _show_page(self, name: str) -> None:
        with self._lock:
            self._shown = name
            self._message.value = ""
            for each, button in self._tabs.items():
                button.description = (_SHOWN if each == name else "") + TITLES[each]
                button.button_style = "primary" if each == name else ""
            self._body.children = (self._get_page(name).widget,)

    def _get_page(self, name: str) -> Page:
        if name not in self._pages:
            self._pages[name] = Page(name, _NOUNS[name], self._run, self._pulse.touch, self._source.list_entries)
        return self._pages[name]

    # --- in the pulse's thread

    def _look(self) -> None:
        with self._lock:
            page = self._get_page(self._shown)
        name = page.wanted
        self._source.watch(name, self._pulse.look_soon)
        try:
            section = self._source.load(name)
        except SourceError as error:
            self._say(str(error), is_error=True)
            return
        with self._lock:
            page.show(section)

    def _rest(self) -> None:
        self._source.watch(None, self._pulse.look_soon)

    # --- what is clicked

    def _run(self, action: Action, on_end: OnEnd) -> None:
        page = self._get_page(self._shown)
        self._say(f"{action.label}…")
        self._source.start(action, lambda outcome: self._end(page, action, outcome, on_end))

    def _end(self, page: Page, action: Action, outcome: Outcome, on_end: OnEnd) -> None:
        with self._lock:
            on_end(outcome.is_ok)
            if action.is_reading and outcome.is_ok:
                page.show_output(action.label, outcome.output, is_to_copy=action.is_to_copy)
                self._say(f"{action.label}: done")
            elif outcome.is_ok:
                self._say(f"{action.label}: done. {_summarise(outcome)}")
            else:
                self._say(f"{action.label}: {outcome.message or outcome.output}", is_error=True)
        self._pulse.look_soon()

    def _say(self, text: str, *, is_error: bool = False) -> None:
        with self._lock:
            self._message.value = render_message(text, is_error=is_error)


def _summarise(outcome: Outcome) -> str:
    answer = outcome.output.strip().splitlines()
    if outcome.is_task:
        return f"It goes on as the task {answer[-1] if answer else ''}: see Tasks."
    return answer[-1] if answer else ""
