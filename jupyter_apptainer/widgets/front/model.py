"""The panel without widgets: sections with rows, what can be done with each, and why something cannot.

All that the panel does is a command line of `jupyter apptainer`, so it does what a terminal would, and says the same.
Their fields are given by name; Python 3.9 has no word for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Union

Words = tuple[str, ...]
Values = Mapping[str, Union[str, bool]]  # noqa: UP007 - read when this is imported, also by Python 3.9


@dataclass(frozen=True)
class Action:
    """One button. words: behind `jupyter apptainer`; in a container, what its host understands. reason: why it is not possible now, empty where it is.

    question: asked before it is done; empty for what can be undone. is_reading: what it prints is the purpose; is_to_copy: and is for
    another place.
    """

    label: str
    words: Words
    reason: str = ""
    question: str = ""
    is_reading: bool = False
    is_to_copy: bool = False


@dataclass(frozen=True)
class Field:
    """One thing to fill in. kind "area": several lines; "folder", "file": chosen by looking around on the host."""

    name: str
    label: str
    kind: Literal["text", "area", "choice", "check", "folder", "file"] = "text"
    default: str = ""
    options: tuple[str, ...] = ()
    hint: str = ""


@dataclass(frozen=True)
class Form:
    """Several things to fill in, and what is done with them.

    note: a sentence above the fields. build: words of the values and, where `is_for_row`, of the key of the chosen row. Raises ValueError for values that cannot be.
    """

    label: str
    fields: tuple[Field, ...]
    build: Callable[[Values, str], Words]
    is_for_row: bool = False
    reason: str = ""
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One thing of a section. cells: as in the table; the first one names it. facts: what else is known of it.

    reasons: why a form of the section is not possible for it, by the form's label.
    """

    key: str
    cells: tuple[str, ...]
    actions: tuple[Action, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What it is called where one is chosen."""
        return self.cells[0]


@dataclass(frozen=True)
class Bar:
    """A part of a whole, from 0 to 1; None where it is not known. text: what it means, in words."""

    label: str
    fraction: float | None
    text: str
    history: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Section:
    """One page of the panel. caption: of its table. notes: sentences above it. bars: shown as pictures, and in words."""

    name: str
    title: str
    caption: str = ""
    headings: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    bars: tuple[Bar, ...] = ()
    forms: tuple[Form, ...] = ()
    empty: str = "nothing here"

    def find_row(self, key: str | None) -> Row | None:
        """Return a row by its key."""
        return next((row for row in self.rows if row.key == key), None)


def filter_rows(section: Section, text: str) -> tuple[Row, ...]:
    """Return the rows that have all the words of `text` in a cell or a fact, whatever their case."""
    wanted = text.lower().split()
    return tuple(row for row in section.rows if all(word in _flatten(row) for word in wanted))


def _flatten(row: Row) -> str:
    return "\n".join((*row.cells, *(value for _, value in row.facts))).lower()
