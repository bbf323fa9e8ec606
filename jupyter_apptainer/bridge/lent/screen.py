"""Shows what a command prints, as it comes: text as text, and a line that is drawn again and again as one line that changes.

Kernels on the host use it as well.
"""

# ruff: noqa: UP035 - the image's Python may be older than ours
from __future__ import annotations

import re
import sys
import time
from typing import Any, Iterable

# Often enough for the eye; each is a message to the front end.
_REDRAW_S = 0.2
# Enough to tell what an error need not say again.
_KEPT_CHARACTERS = 64 * 1024
# Programs that draw a line again clear it, or return to its beginning.
_CURSOR = re.compile(r"(?:\x1b\[\d*[AGJK])+")
_LINES = re.compile(r"[^\n]*\n|[^\n]+")


class Screen:
    """Shows what a command prints in one cell. hidden: streams that are not shown. is_terminal: what is shown goes to a terminal, which
    draws over a line by itself; elsewhere a line that changes is an output of its own. `shown`: the end of what was shown."""

    def __init__(self, hidden: Iterable[str] = (), is_terminal: bool = False) -> None:
        self._hidden = frozenset(hidden)
        self._is_terminal = is_terminal
        self._lines = {"stdout": _Line(), "stderr": _Line()}
        self.shown = ""

    def feed(self, stream: str, text: str) -> None:
        """Take the next piece."""
        if stream in self._hidden or stream not in self._lines:
            return
        self.shown = (self.shown + text)[-_KEPT_CHARACTERS:]
        plain = text if self._is_terminal else self._lines[stream].take(text)
        if plain:
            target = sys.stdout if stream == "stdout" else sys.stderr
            target.write(plain)
            target.flush()

    def close(self) -> None:
        """Let everything stay as it is."""
        for line in self._lines.values():
            line.close()


class _Line:
    """The line of a stream that changes, as long as it does."""

    def __init__(self) -> None:
        self._state = self._drawn = ""
        self._handle: Any = None
        self._drawn_at = 0.0
        # A carriage return was the last that came.
        self._is_returned = False

    def take(self, text: str) -> str:
        """Return what is plain text, and draw the rest."""
        plain = ""
        for line in _LINES.findall(_CURSOR.sub("\r", text.replace("\r\n", "\n"))):
            if self._handle is None and "\r" not in line:
                plain += line
                continue
            self._draw(line.rstrip("\n"))
            if line.endswith("\n"):
                self.close()
        return plain

    def close(self) -> None:
        """Let it stay as it is."""
        if self._handle is not None:
            self._show()
        self._state, self._drawn, self._handle, self._is_returned = "", "", None, False

    def _draw(self, text: str) -> None:
        for index, part in enumerate(text.split("\r")):
            self._is_returned = self._is_returned or index > 0
            if part:
                self._state = part if self._is_returned else self._state + part
                self._is_returned = False
        if self._handle is None or time.monotonic() - self._drawn_at >= _REDRAW_S:
            self._show()

    def _show(self) -> None:
        if self._handle is None:
            from IPython.display import display

            self._handle = display(_Text(self._state), display_id=True)  # type: ignore[no-untyped-call]  # IPython's own
        elif self._state != self._drawn:
            self._handle.update(_Text(self._state))
        self._drawn, self._drawn_at = self._state, time.monotonic()


class _Text:
    """Shown as it is, without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text
