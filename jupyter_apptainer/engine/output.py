"""What a running engine prints: gathered, decoded, passed on; and the terminal on which it draws its progress."""

from __future__ import annotations

import codecs
import fcntl
import pty
import struct
import termios
import time
from collections.abc import Callable
from typing import Literal

from .bars import strip_bars
from .command import Completed

Stream = Literal["stdout", "stderr"]
OnText = Callable[[Stream, str], None]

# Progress bars are drawn for this width, so that what is parsed does not depend on anybody's window.
PTY_COLUMNS, PTY_ROWS = 100, 40
KEPT_OUTPUT = 4_000_000


class Collector:
    """Gathers what a process prints, newest KEPT_OUTPUT characters of each stream, and passes it on.

    has_bars: it draws on a terminal; the bars are passed on, and are no part of what is gathered.
    """

    def __init__(self, on_text: OnText | None, *, has_bars: bool = False) -> None:
        self._has_bars = has_bars
        self._parts: dict[Stream, list[str]] = {"stdout": [], "stderr": []}
        self._size: dict[Stream, int] = {"stdout": 0, "stderr": 0}
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders: dict[Stream, codecs.IncrementalDecoder] = {
            "stdout": decoder("replace"),
            "stderr": decoder("replace"),
        }
        self._on_text = on_text

    def feed(self, stream: Stream, data: bytes) -> None:
        self._add(stream, self._decoders[stream].decode(data))

    def _add(self, stream: Stream, text: str) -> None:
        if not text:
            return
        self._parts[stream].append(text)
        self._size[stream] += len(text)
        while self._size[stream] > KEPT_OUTPUT and len(self._parts[stream]) > 1:
            self._size[stream] -= len(self._parts[stream].pop(0))
        if self._on_text:
            self._on_text(stream, text)

    def complete(self, argv: tuple[str, ...], returncode: int, started: float) -> Completed:
        for name, decoder in self._decoders.items():
            self._add(name, decoder.decode(b"", final=True))
        printed = "".join(self._parts["stderr"])
        return Completed(
            argv=argv,
            returncode=returncode,
            stdout="".join(self._parts["stdout"]),
            stderr=strip_bars(printed) if self._has_bars else printed,
            duration_s=time.monotonic() - started,
        )


def open_pty() -> tuple[int, int]:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", PTY_ROWS, PTY_COLUMNS, 0, 0))
    return leader, follower
