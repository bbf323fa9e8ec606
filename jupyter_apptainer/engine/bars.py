"""Progress bars that the engine draws on a terminal, told apart from its messages.

Apptainer redraws all bars of a step at once: the cursor goes up, and one line for each follows
(`1.2MiB / 3.9MiB [====>---] 30 % 1.1 MiB/s 2s`, or `[====>---] 30 % 2s` for mksquashfs).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from .command import strip_ansi

_AMOUNT = r"([\d.]+) ?([KMGT]?i?[Bb])"
_BAR = re.compile(rf"^(?:{_AMOUNT} / {_AMOUNT} )?\[[-=> ]+\] +(\d+) %")
# mksquashfs' own, where the engine passes it on: [=====|  ] 120/240  50%
_COUNTED = re.compile(r"^\[[-=|/\\ ]+\] +(\d+)/(\d+) +\d+%")
_UP = re.compile(r"\x1b\[\d*A")
# At the beginning of a line, where there is nothing to draw over.
_RETURN = re.compile(r"^\r+(?=.)", re.MULTILINE)
_FACTORS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Bar:
    """How far a step is. Amounts in bytes are rounded, as they were drawn."""

    done: int
    total: int
    unit: Literal["bytes", "percent", "items"]


class BarReader:
    """Takes text in whatever pieces it comes, and passes on whole lines and the sum of the bars."""

    def __init__(self, on_line: Callable[[str], None], on_bar: Callable[[Bar], None]) -> None:
        self._on_line = on_line
        self._on_bar = on_bar
        self._rest = ""
        self._frame: list[Bar] = []
        self._is_drawn = True

    def feed(self, text: str) -> None:
        """Take a piece."""
        whole = _RETURN.sub("", (self._rest + text).replace("\r\n", "\n"))
        # A line that is drawn again begins with a carriage return; one at the very end may be half of a line's end.
        kept = "\r" if whole.endswith("\r") else ""
        *lines, self._rest = whole.removesuffix("\r").replace("\r", "\n").split("\n")
        self._rest += kept
        for line in lines:
            self._take(line)
        # A frame is written at once.
        self._draw()

    def close(self) -> None:
        """Take the last line, which has no end."""
        rest, self._rest = self._rest.strip("\r"), ""
        if rest:
            self._take(rest)
        self._draw()

    def _take(self, line: str) -> None:
        if goes_up(line):
            self._frame = []
        plain = strip_ansi(line).rstrip()
        bar = parse_bar(plain)
        if bar:
            # mksquashfs draws one bar, again and again on the same line.
            self._frame = [bar] if bar.unit == "items" else [*self._frame, bar]
            self._is_drawn = False
        elif plain or line == plain:
            self._draw()
            self._frame = []
            self._on_line(plain)

    def _draw(self) -> None:
        if self._frame and not self._is_drawn:
            self._on_bar(sum_bars(self._frame))
        self._is_drawn = True


def goes_up(line: str) -> bool:
    """Say whether a new frame begins here, over the one before."""
    return bool(_UP.search(line))


def parse_bar(line: str) -> Bar | None:
    """Return what a line draws; None for a line that is no bar."""
    if counted := _COUNTED.match(line):
        return Bar(int(counted[1]), int(counted[2]), "items")
    found = _BAR.match(line)
    if not found:
        return None
    if found[1] is None:
        return Bar(int(found[5]), 100, "percent")
    return Bar(_count_bytes(found[1], found[2]), _count_bytes(found[3], found[4]), "bytes")


def strip_bars(text: str) -> str:
    """Return the text without bars and colours."""
    lines: list[str] = []
    reader = BarReader(lines.append, lambda _: None)
    reader.feed(text)
    reader.close()
    return "".join(f"{line}\n" for line in lines)


def sum_bars(bars: Sequence[Bar]) -> Bar:
    """Return the bars of one frame as one. bars: at least one."""
    unit = bars[0].unit
    if unit == "percent":
        return Bar(sum(bar.done for bar in bars) // len(bars), 100, unit)
    return Bar(sum(bar.done for bar in bars), sum(bar.total for bar in bars), unit)


def _count_bytes(number: str, unit: str) -> int:
    return round(float(number) * _FACTORS[unit[0] if unit[0] in _FACTORS else ""])
