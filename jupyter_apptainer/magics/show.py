"""Shows what a command prints, as it comes: text as text, and a line that is drawn again and again as one line that changes."""

from __future__ import annotations

import sys
import time
from typing import Any

from IPython.display import display

# A front end need not redraw more often than somebody can read.
_EVERY_S = 0.1


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
        self.shown += text
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
    """The line of a stream that is being drawn: from the first carriage return to the next line break it is a display of its own."""

    def __init__(self) -> None:
        self._state = ""
        self._handle: Any = None
        self._drawn_at = 0.0

    def take(self, text: str) -> str:
        """Return what is plain text, and draw the rest."""
        plain = ""
        while text:
            if self._handle is None and "\r" not in text:
                return plain + text
            head, newline, rest = text.partition("\n")
            if self._handle is None and "\r" not in head:
                plain, text = plain + head + newline, rest
                continue
            self._draw(head)
            if newline:
                self.close()
            text = rest
        return plain

    def close(self) -> None:
        """Let the line stay as it is."""
        if self._handle is not None:
            self._update()
        self._handle, self._state = None, ""

    def _draw(self, text: str) -> None:
        for part in text.split("\r"):
            self._state = part or self._state
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
