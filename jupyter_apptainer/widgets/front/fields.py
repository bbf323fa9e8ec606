"""Fields of a form as widgets, and a folder or file that is chosen by looking around on the host."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets

from .model import Field

ListEntries = Callable[[str], Sequence[str]]
_WIDE = ipywidgets.Layout(width="min(560px, 95%)")
_STYLE = {"description_width": "130px"}
_BUTTON = {"width": "auto"}


class PathField:
    """A path that can be typed, a list of what lies there, and buttons that go into a folder of it, take a file of it, and go up again.

    A choice in the list alone goes nowhere: with the keyboard one passes all that lies before the one that is meant.
    """

    def __init__(self, field: Field, list_entries: ListEntries) -> None:
        self._list_entries = list_entries
        self._has_files = field.kind == "file"
        # Where its list is from.
        self._folder = os.getcwd()
        self._path = ipywidgets.Text(
            value="" if self._has_files else self._folder,
            description=field.label,
            placeholder=field.hint,
            layout=_WIDE,
            style=_STYLE,
        )
        label = "Files there" if self._has_files else "Folders there"
        self._list = ipywidgets.Select(description=label, options=(), rows=6, layout=_WIDE, style=_STYLE)
        self._take = ipywidgets.Button(
            description="Open or take it" if self._has_files else "Open the folder", layout=_BUTTON, disabled=True
        )
        up = ipywidgets.Button(description="Go up", layout=_BUTTON)
        self.widget = ipywidgets.VBox([self._path, self._list, ipywidgets.HBox([self._take, up])])
        self._path.observe(lambda _: self._look(), "value")
        self._take.on_click(lambda _: self._go(str(self._list.value or "")))
        up.on_click(lambda _: self._go(os.pardir))
        self._look()

    @property
    def value(self) -> str:
        """The path."""
        return str(self._path.value)

    def _look(self) -> None:
        """Look in a thread: a network's file system may take its time."""
        threading.Thread(target=self._show, args=(self.value,), name="jpa-panel-folders", daemon=True).start()

    def _show(self, path: str) -> None:
        folder = os.path.expanduser(path) or os.getcwd()
        names = self._list_entries(folder)
        if self._has_files and not names:
            # It is a file, or the beginning of its name.
            folder = os.path.dirname(folder)
            names = self._list_entries(folder)
        if path == self.value:
            self._folder = folder
            self._list.options = tuple(name for name in names if self._has_files or name.endswith("/"))
            self._take.disabled = not self._list.options

    def _go(self, name: str) -> None:
        self._path.value = os.path.normpath(os.path.join(self._folder, name))


def make_field(field: Field, list_entries: ListEntries) -> tuple[Any, Callable[[], str | bool]]:
    """Return a widget for a field, and a function that returns what is in it."""
    common: dict[str, Any] = {"description": field.label, "layout": _WIDE, "style": _STYLE}
    if field.kind in ("folder", "file"):
        chooser = PathField(field, list_entries)
        return chooser.widget, lambda: chooser.value
    if field.kind == "check":
        widget: Any = ipywidgets.Checkbox(value=bool(field.default), indent=True, **common)
    elif field.kind == "choice":
        widget = ipywidgets.Dropdown(options=field.options, value=field.default or field.options[0], **common)
    elif field.kind == "area":
        widget = ipywidgets.Textarea(value=field.default, placeholder=field.hint, rows=8, **common)
    else:
        widget = ipywidgets.Text(value=field.default, placeholder=field.hint, **common)
    return widget, lambda: widget.value
