"""The bars that the engine draws on a terminal, as one line that begins with a carriage return, which every screen can show.

The engine draws one for each layer below each other, and goes up as many lines to draw them again; a cell has no line above.
"""

from __future__ import annotations

import re

from ..engine.bars import Bar, goes_up, parse_bar, sum_bars
from ..engine.command import strip_ansi

_LINES = re.compile(r"[^\n]*\n|[^\n]+")
# A line without an end that may become a bar; others are shown at once.
_BEGUN = re.compile(r"(?:\x1b[\[\dAJ]*)*[\d.\[]|\x1b[\[\dAJ]*\Z")
_WIDTH = 30
_MIB = 2**20


class OneBar:
    """Takes what the engine prints on a terminal, in whatever pieces it comes."""

    def __init__(self) -> None:
        self._rest = ""
        self._frame: list[Bar] = []
        self._is_open = False
        self._drawn = ""

    def feed(self, text: str) -> str:
        """Return what is to be shown of the next piece."""
        whole = self._rest + text
        # One at the very end may be half of a line's end.
        self._rest = "\r" if whole.endswith("\r") else ""
        lines = _LINES.findall(whole.removesuffix("\r").replace("\r\n", "\n"))
        if lines and not lines[-1].endswith("\n") and _BEGUN.match(lines[-1]):
            self._rest = lines.pop() + self._rest
        return "".join(map(self._take, lines)) + self._draw()

    def close(self) -> str:
        """Return what was kept back, and the end of a bar's line."""
        rest, self._rest = self._rest, ""
        return (self._take(rest) if rest.strip("\r") else "") + self._draw() + self._settle()

    def _take(self, line: str) -> str:
        plain = strip_ansi(line).strip()
        bar = parse_bar(plain)
        if bar is None:
            # A frame is followed by an empty line at times.
            return self._draw() + self._settle() + line if plain or not self._is_open else ""
        if goes_up(line) or bar.unit == "items":
            self._frame = []
        self._frame.append(bar)
        self._is_open = True
        return ""

    def _draw(self) -> str:
        """Return the sum of the frame as it is now; a frame is written at once."""
        line = render_bar(sum_bars(self._frame)) if self._frame else ""
        if line == self._drawn:
            return ""
        self._drawn = line
        return "\r" + line

    def _settle(self) -> str:
        """Return the end of the line, which stays as it is."""
        end = "\n" if self._is_open else ""
        self._frame, self._is_open, self._drawn = [], False, ""
        return end


def render_bar(bar: Bar) -> str:
    """Return a line that is as long as any other one, so that it can be drawn over."""
    done = min(bar.done / bar.total, 1.0) if bar.total else 0.0
    filled = "=" * round(done * _WIDTH)
    return f"[{filled:{_WIDTH}}] {done * 100:3.0f} %{_render_amount(bar):>24}"


def _render_amount(bar: Bar) -> str:
    match bar.unit:
        case "bytes":
            return f"{bar.done / _MIB:.1f} of {bar.total / _MIB:.1f} MiB"
        case "items":
            return f"{bar.done} of {bar.total}"
        case "percent":
            return ""
