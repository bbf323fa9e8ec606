"""Fields of a form as widgets, and a folder that is chosen by looking around on the host."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets

from .model import Field

ListFolders = Callable[[str], Sequence[str]]
_WIDE = ipywidgets.Layout(width="min(560px, 95%)")
_STYLE = {"description_width": "130px"}
_BUTTON = {"width": "auto"}


class FolderField:
    """A path that can be typed, a list of the folders that lie there, and buttons that go into one and up again.

    A choice in the list alone goes nowhere: with the keyboard one passes all that lies before the one that is meant.
    """

    def __init__(self, field: Field, list_folders: ListFolders) -> None:
        self._list_folders = list_folders
        self._path = ipywidgets.Text(
            value=os.getcwd(), description=field.label, placeholder=field.hint, layout=_WIDE, style=_STYLE
        )
        self._list = ipywidgets.Select(description="Folders there", options=(), rows=6, layout=_WIDE, style=_STYLE)
        self._into = ipywidgets.Button(description="Open the folder", layout=_BUTTON, disabled=True)
        up = ipywidgets.Button(description="Go up", layout=_BUTTON)
        self.widget = ipywidgets.VBox([self._path, self._list, ipywidgets.HBox([self._into, up])])
        self._path.observe(lambda _: self._look(), "value")
        self._into.on_click(lambda _: self._go(str(self._list.value or "")))
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
        names = tuple(self._list_folders(path))
        if path == self.value:
            self._list.options = names
            self._into.disabled = not names

    def _go(self, name: str) -> None:
        self._path.value = os.path.normpath(os.path.join(os.path.expanduser(self.value), name))


def make_field(field: Field, list_folders: ListFolders) -> tuple[Any, Callable[[], str | bool]]:
    """Return a widget for a field, and a function that returns what is in it."""
    common: dict[str, Any] = {"description": field.label, "layout": _WIDE, "style": _STYLE}
    if field.kind == "folder":
        chooser = FolderField(field, list_folders)
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
