"""What is wrong, or worth knowing, in a recipe, before anything is built: line, severity, reason, way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Finding:
    """One finding.

    line: counted from 1; 0 where it concerns no line. severity: an error makes the build fail, or an image that cannot be
    what was meant; a warning may; a note says what was left out. code: stable, for programs. hint: what to do.
    """

    line: int
    severity: Severity
    code: str
    reason: str
    hint: str = ""

    def render(self, path: str = "") -> str:
        """One line for people, as compilers have it: `recipe.def:12: error: reason; hint`."""
        place = ":".join(filter(None, (path, str(self.line) if self.line else "")))
        text = f"{self.severity}: {self.reason}" + (f" ({self.hint})" if self.hint else "")
        return f"{place}: {text}" if place else text

    def to_json(self) -> dict[str, object]:
        """The same content for programs."""
        return {
            "line": self.line,
            "severity": self.severity,
            "code": self.code,
            "reason": self.reason,
            "hint": self.hint,
        }


def sort_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return them by line, the worst first; each once."""
    return tuple(sorted(dict.fromkeys(findings), key=lambda each: (each.line, _ORDER[each.severity], each.code)))


def find_nearest(word: str, known: Sequence[str]) -> str:
    """Return the known word that was probably meant, or an empty text."""
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[near[0]] if near else ""
