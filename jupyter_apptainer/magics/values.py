"""What a magic returns: lists and objects that are plain Python, and show themselves as tables, in text and in HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .model import Value

_STYLE = "text-align: left; vertical-align: top; white-space: pre-wrap"


class Row(dict[str, Any]):
    """An object of an answer: a dict whose keys are attributes as well."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no {name!r}; there are {', '.join(self)}") from None

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self]


class Record(Row):
    """One object, shown line by line."""

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        return "\n".join(f"{name:{width}}  {_show(value)}" for name, value in self.items()) or "nothing"

    def _repr_html_(self) -> str:
        return _render([], [(name, _show(value)) for name, value in self.items()])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Called by IPython, which has a form of its own for every kind of dict."""
        printer.text(repr(self))


class Table(list[Row]):
    """A list of objects, shown with some of their fields as columns."""

    def __init__(self, rows: Iterable[Row], columns: Sequence[tuple[str, str]]) -> None:
        super().__init__(rows)
        self._columns = tuple(columns)

    def _build_cells(self) -> list[list[str]]:
        return [[_show(row.get(key)) for key, _ in self._columns] for row in self]

    def __repr__(self) -> str:
        if not self:
            return "none"
        lines = [[heading for _, heading in self._columns], *self._build_cells()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)

    def _repr_html_(self) -> str:
        return _render([heading for _, heading in self._columns], self._build_cells()) if self else "<em>none</em>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Called by IPython, which has a form of its own for every kind of list."""
        printer.text(repr(self))


class Result:
    """A command that has ended, or a failure that was not raised. Its output has been shown already, so it shows nothing."""

    def __init__(self, returncode: int, stdout: str, stderr: str, error: Exception | None = None) -> None:
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr
        self.error = error

    def __repr__(self) -> str:
        return f"<exit status {self.returncode}, {len(self.stdout)} + {len(self.stderr)} characters printed>"

    def _ipython_display_(self) -> None:
        """Called by IPython at the end of a cell."""


def build_value(value: Value) -> Any:
    """Return it as Python."""
    match value.kind:
        case "table":
            return Table([Row(row) for row in value.data], value.columns)
        case "record":
            return Record(value.data)
        case "plain":
            return value.data


def _show(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={each}" for key, each in value.items())
    return str(value)


def _render(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th style="{_STYLE}">{html.escape(word)}</th>' for word in headings)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_STYLE}">{html.escape(word)}</td>' for word in row) + "</tr>" for row in rows
    )
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"
