"""What of a command's output reaches the cell at once: all but the engine's usage texts, its noise, and what an error will say again."""

from __future__ import annotations

import re

from ..engine.output import Stream
from .model import OnText
from .progress import OneBar

# Of no use to anybody in a cell, and in every start; and what is raised as an error.
_NOISE = re.compile(
    r"^(?:INFO: +(?:gocryptfs not found|Instance stats will not be available)|(?:\x1b\[\d+m)?FATAL: )[^\n]*\n",
    re.MULTILINE,
)
_USAGE = re.compile(r"(?:Usage:\n|Options for )")
_REFUSAL = re.compile(r'Error(?: for command "[^"]*")?: ')
# Ours, or that of argparse, which begins with a usage text.
_OWN_ERROR = re.compile(r"^(?:error|usage): ", re.MULTILINE)


class EngineRelay:
    """Passes on what the engine and programs print; nothing more once the engine has refused the line itself.

    has_bars: the engine draws on a terminal.
    """

    def __init__(self, on_text: OnText, *, has_bars: bool = False) -> None:
        self._on_text = on_text
        self._bar = OneBar() if has_bars else None
        self._is_refused = False
        self._begun: set[Stream] = set()

    def feed(self, stream: Stream, text: str) -> None:
        """Take the next piece."""
        if stream not in self._begun:
            self._begun.add(stream)
            pattern = _USAGE if stream == "stdout" else _REFUSAL
            self._is_refused = self._is_refused or bool(pattern.match(text))
        if stream == "stderr":
            text = self._bar.feed(text) if self._bar else text.replace("\r\n", "\n")
        self._pass_on(stream, text)

    def close(self) -> None:
        """Pass on what was kept back."""
        if self._bar:
            self._pass_on("stderr", self._bar.close())

    def _pass_on(self, stream: Stream, text: str) -> None:
        text = _NOISE.sub("", text) if stream == "stderr" else text
        if text and not self._is_refused:
            self._on_text(stream, text)


class OwnRelay:
    """Passes on what a command of ours prints, up to its error, which is raised instead."""

    def __init__(self, on_text: OnText) -> None:
        self._on_text = on_text
        self._is_error = False

    def feed(self, stream: Stream, text: str) -> None:
        """Take the next piece."""
        if stream == "stderr":
            if self._is_error:
                return
            match = _OWN_ERROR.search(text)
            if match:
                self._is_error = True
                text = text[: match.start()]
        if text:
            self._on_text(stream, text)
