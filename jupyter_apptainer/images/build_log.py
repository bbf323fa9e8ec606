"""What a build prints: kept in a file, and turned into its phases for whoever waits."""

from __future__ import annotations

import os
import re
import secrets
from collections import deque
from collections.abc import Callable
from pathlib import Path

from ..engine.command import parse_log_lines, strip_ansi
from ..engine.output import Stream
from ..places import make_private_dir

KEPT_LOGS = 30
_TAIL_LINES = 200
# The engine's own messages, and what they mean for a person.
_PHASES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"^Fetching OCI image"), "Fetching the base image"),
    (re.compile(r"^Downloading "), "Fetching the base image"),
    (re.compile(r"^Extracting (?:OCI|local) image"), "Unpacking the base image"),
    (re.compile(r"^Copying \S"), "Copying files"),
    (re.compile(r"^Running (?P<name>setup|pre|post) scriptlet"), "Running %{name}"),
    (re.compile(r"^Running testscript"), "Running %test"),
    (re.compile(r"^Creating SIF file"), "Compressing"),
)
OnProgress = Callable[[str], None]


class BuildLog:
    """The log of one build. A file of mode 0600: what scripts print may be nobody else's business."""

    def __init__(self, folder: Path, name: str, on_progress: OnProgress) -> None:
        self.path = folder / f"{name}-{secrets.token_hex(3)}.log"
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._on_progress = on_progress
        self._rest: dict[Stream, str] = {"stdout": "", "stderr": ""}
        self._last = ""

    def open(self) -> None:
        """Make the file, and remove the oldest ones."""
        folder = make_private_dir(self.path.parent)
        os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        for old in sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)[:-KEPT_LOGS]:
            old.unlink(missing_ok=True)

    def begin(self, phase: str) -> None:
        """Tell what begins now, once."""
        if phase != self._last:
            self._last = phase
            self._on_progress(phase)

    def feed(self, stream: Stream, text: str) -> None:
        """Take what the engine prints, in whatever pieces it comes."""
        *lines, self._rest[stream] = (self._rest[stream] + text).split("\n")
        self._add(lines)

    def close(self) -> None:
        """Take the last lines, which have no end."""
        self._add([rest for rest in self._rest.values() if rest])
        self._rest = {"stdout": "", "stderr": ""}

    def _add(self, lines: list[str]) -> None:
        clean = [strip_ansi(line).rstrip() for line in lines]
        if not clean:
            return
        with self.path.open("a", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in clean)
        for line in clean:
            self.tail.append(line)
            phase = find_phase(line)
            if phase:
                self.begin(phase)


def find_phase(line: str) -> str:
    """Return what begins with this line of output, or an empty text. A script's own `== What it does` counts too."""
    if line.startswith("== "):
        return line.removeprefix("== ").strip()
    if line.startswith("I: Retrieving "):
        return "Making a system of the mirror's packages"
    messages = parse_log_lines(line)
    if not messages or messages[0].level != "INFO":
        return ""
    for pattern, phase in _PHASES:
        match = pattern.match(messages[0].message)
        if match:
            return phase.replace("{name}", match.groupdict().get("name") or "")
    return ""
