"""What is to be said about a kernel that was described elsewhere: in a script, a pasted line, or another kernelspec."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Remark:
    """One thing that a person should know.

    level "error": the kernel would not be what was meant; "warning": a mistake that does not touch the kernel; "note": something
    that was left out or replaced on purpose. line: counted from 1; None where there are no lines. hint: the way out.
    """

    level: Level
    text: str
    hint: str = ""
    line: int | None = None
    about: str = ""


class Remarks(list[Remark]):
    """Remarks in the order in which they were made."""

    def error(self, text: str, hint: str = "", line: int | None = None, *, about: str = "") -> None:
        """Note that the kernel would not be what was meant."""
        self._add(Remark("error", text, hint, line, about))

    def warn(self, text: str, hint: str = "", line: int | None = None) -> None:
        """Note a mistake that does not touch the kernel."""
        self._add(Remark("warning", text, hint, line))

    def note(self, text: str, hint: str = "", line: int | None = None) -> None:
        """Note what was left out or replaced on purpose."""
        self._add(Remark("note", text, hint, line))

    def without(self, fields: Collection[str]) -> Remarks:
        """Return those that are not settled by giving `fields` anew."""
        return Remarks(remark for remark in self if remark.about not in fields)

    @property
    def has_errors(self) -> bool:
        """The kernel would not be what was meant."""
        return any(remark.level == "error" for remark in self)

    def _add(self, remark: Remark) -> None:
        if remark not in self:
            self.append(remark)

    def in_order(self) -> list[Remark]:
        """Return the remarks by their lines; those without a line come last."""
        return sorted(self, key=lambda remark: remark.line or 1_000_000_000)
