"""What a line returns: lists and objects that are plain Python, and show themselves as tables."""

# ruff: noqa: B905, UP006, UP035, UP045 - the image's Python may be older than ours
from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple


class Record(Dict[str, Any]):
    """An object of an answer: a dict whose keys are attributes as well, shown line by line."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no {name!r}; there are {', '.join(self)}") from None

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        return "\n".join(f"{name:{width}}  {_show(value)}" for name, value in self.items()) or "nothing"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Called by IPython, which has a form of its own for every kind of dict."""
        printer.text(repr(self))


class Table(List[Any]):
    """A list of objects, shown with some of their fields as columns."""

    def __init__(self, rows: List[Any], columns: List[Tuple[str, str]]) -> None:
        super().__init__(Record(row) for row in rows)
        self._columns = columns

    def _build_cells(self) -> List[List[str]]:
        return [[_show(row.get(key)) for key, _ in self._columns] for row in self]

    def __repr__(self) -> str:
        if not self:
            return "none"
        lines = [[heading for _, heading in self._columns], *self._build_cells()]
        widths = [max(map(len, column)) for column in zip(*lines)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Called by IPython, which has a form of its own for every kind of list."""
        printer.text(repr(self))

    def _repr_html_(self) -> str:
        from html import escape

        head = "".join(f"<th>{escape(heading)}</th>" for _, heading in self._columns)
        rows = ("".join(f"<td>{escape(word)}</td>" for word in row) for row in self._build_cells())
        return "<table><tr>{}</tr>{}</table>".format(head, "".join(f"<tr>{row}</tr>" for row in rows))


class Status(Dict[str, Any]):
    """What this kernel runs in, shown as text."""

    def __repr__(self) -> str:
        return str(self.get("text", "")).rstrip("\n")

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Called by IPython."""
        printer.text(repr(self))


def build_value(value: Optional[Dict[str, Any]]) -> Any:
    """Return what a command answered as Python."""
    if value is None:
        return None
    if value["kind"] == "table":
        return Table(value["data"], [tuple(column) for column in value["columns"]])
    return Record(value["data"]) if value["kind"] == "record" else value["data"]


def _show(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
