"""Shows what a command prints, as it comes: text as text, and a line that is drawn again and again as one line that changes."""

from __future__ import annotations

import re
import sys
import time
from typing import Any

from IPython.display import display

# The engine goes up a line and draws its bar again; others return to the beginning of theirs.
_CURSOR = re.compile(r"(?:\x1b\[\d*[AGJK])+")
_LINES = re.compile(r"[^\n]*\n|[^\n]+")
_BAR = re.compile(r"\r?\[[-=>#. ]{10,}\] +\d+")
# A front end need not redraw more often than somebody can read.
_EVERY_S = 0.1
# Enough to tell what an error need not say again.
_KEPT_CHARACTERS = 64 << 10


class Screen:
    """The output of one command in one cell. hidden: streams that are kept and not shown."""

    def __init__(self, *, hidden: frozenset[str] = frozenset(), is_terminal: bool = False) -> None:
        self._hidden = hidden
        self._is_terminal = is_terminal
        self._lines = {"stdout": _Line(), "stderr": _Line()}
        self.shown = ""

    def feed(self, stream: str, text: str) -> None:
        """Take the next piece."""
        if stream in self._hidden:
            return
        self.shown = (self.shown + text)[-_KEPT_CHARACTERS:]
        if self._is_terminal:
            self._write(stream, text)
            return
        line = self._lines[stream]
        plain = line.take(text.replace("\r\n", "\n"))
        if plain:
            self._write(stream, plain)

    def close(self) -> None:
        """Show what has no end yet."""
        for line in self._lines.values():
            line.close()

    def _write(self, stream: str, text: str) -> None:
        target = sys.stdout if stream == "stdout" else sys.stderr
        target.write(text)
        target.flush()


class _Line:
    """The line of a stream that is being drawn: as long as it changes it is a display of its own, and then stays."""

    def __init__(self) -> None:
        self._state = ""
        self._handle: Any = None
        self._drawn_at = 0.0
        # A carriage return was the last that came; a bar has ended its line, and the engine may go back up to it.
        self._is_returned = self._is_ended = False

    def take(self, text: str) -> str:
        """Return what is plain text, and draw the rest."""
        plain = ""
        for line in _LINES.findall(_CURSOR.sub("\r", text)):
            plain += self._take_line(line)
        return plain

    def _take_line(self, line: str) -> str:
        is_bar = bool(_BAR.match(line))
        if self._is_ended and not (is_bar or line.startswith("\r")):
            self.close()
        if self._handle is None and not is_bar and "\r" not in line:
            return line
        self._draw(line.rstrip("\n"))
        if line.endswith("\n"):
            self._is_ended = bool(_BAR.match(self._state))
            if not self._is_ended:
                self.close()
        return ""

    def close(self) -> None:
        """Let the line stay as it is."""
        if self._handle is not None:
            self._update()
        self._handle, self._state = None, ""
        self._is_returned = self._is_ended = False

    def _draw(self, text: str) -> None:
        for index, part in enumerate(text.split("\r")):
            self._is_returned = self._is_returned or index > 0
            if part:
                self._state = part if self._is_returned else self._state + part
                self._is_returned = False
        if self._handle is None:
            self._handle = display(_Text(self._state), display_id=True)  # type: ignore[no-untyped-call]  # IPython's own
        elif time.monotonic() - self._drawn_at >= _EVERY_S:
            self._update()

    def _update(self) -> None:
        self._drawn_at = time.monotonic()
        self._handle.update(_Text(self._state))


class _Text:
    """Shown as it is, without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text
