"""Fields of a form as widgets, and a folder that is chosen by looking around on this host."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import ipywidgets

from .model import Field

_WIDE = ipywidgets.Layout(width="min(560px, 95%)")
_STYLE = {"description_width": "130px"}
_UP = "⬑ the folder above"


class FolderField:
    """A path that can be typed, and a list of the folders that lie there."""

    def __init__(self, field: Field) -> None:
        self._path = ipywidgets.Text(
            value=os.getcwd(), description=field.label, placeholder=field.hint, layout=_WIDE, style=_STYLE
        )
        self._list = ipywidgets.Select(description="Folders there", options=(), rows=6, layout=_WIDE, style=_STYLE)
        self.widget = ipywidgets.VBox([self._path, self._list])
        self._path.observe(lambda _: self._show(), "value")
        self._list.observe(self._enter, "value")
        self._show()

    @property
    def value(self) -> str:
        """The path."""
        return str(self._path.value)

    def _show(self) -> None:
        self._list.unobserve(self._enter, "value")
        self._list.options = (_UP, *_list_folders(self.value))
        self._list.value = None
        self._list.observe(self._enter, "value")

    def _enter(self, change: Any) -> None:
        if change["new"] is None:
            return
        here = os.path.abspath(os.path.expanduser(self.value))
        self._path.value = os.path.dirname(here) if change["new"] == _UP else os.path.join(here, change["new"])


def make_field(field: Field) -> tuple[Any, Callable[[], str | bool]]:
    """Return a widget for a field, and a function that returns what is in it."""
    common: dict[str, Any] = {"description": field.label, "layout": _WIDE, "style": _STYLE}
    if field.kind == "folder":
        chooser = FolderField(field)
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


def _list_folders(path: str) -> tuple[str, ...]:
    try:
        with os.scandir(os.path.expanduser(path) or ".") as entries:
            return tuple(sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()))
    except OSError:
        return ()
