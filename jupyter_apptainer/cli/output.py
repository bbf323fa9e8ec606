"""How results are shown: tables for people, JSON for programs, both on standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

GREEN, YELLOW, RED = "32", "33", "31"


def print_json(data: object) -> None:
    """Print one JSON document."""
    print(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns that are as wide as their longest word; the last one is as long as it likes."""
    widths = [max(len(row[i]) for row in [headings, *rows]) for i in range(len(headings))]
    for row in [headings, *rows]:
        line = "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True))
        print(line.rstrip())


def print_note(text: str) -> None:
    """Tell a person something that is not the result."""
    print(text, file=sys.stderr)


def paint(text: str, colour: str) -> str:
    """Colour `text` where standard output is a terminal and NO_COLOR is not set."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"


def make_printable(text: str) -> str:
    """Return a stranger's words without characters that would steer a terminal."""
    return "".join(char if char.isprintable() else "�" for char in text)


def is_yes(question: str) -> bool:
    """Ask a person; no terminal and no answer mean no."""
    if not sys.stdin.isatty():
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
