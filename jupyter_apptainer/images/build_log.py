"""What a build prints: kept in a file, and turned into its phases for whoever waits."""

from __future__ import annotations

import os
import re
import secrets
from collections import deque
from collections.abc import Callable
from pathlib import Path

from ..engine.bars import Bar, BarReader
from ..engine.command import parse_log_lines
from ..engine.output import Stream
from ..places import make_private_dir
from ..tasks.report import Report

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
# apt-get: "0 upgraded, 12 newly installed, 0 to remove and 3 not upgraded."
_NEW_PACKAGES = re.compile(r"(\d+) upgraded, (\d+) newly installed,")
_PACKAGE_STEP = re.compile(r"(?:Unpacking|Setting up) \S+ \(")
OnProgress = Callable[[str], None]


class BuildLog:
    """The log of one build. A file of mode 0600: what scripts print may be nobody else's business."""

    def __init__(
        self,
        folder: Path,
        name: str,
        on_progress: OnProgress,
        report: Report | None = None,
        redact: Callable[[str], str] = str,
    ) -> None:
        """report: of the task that this build is; its log is the build's. redact: takes secrets out of a line."""
        self.path = report.log_path if report else folder / f"{name}-{secrets.token_hex(3)}.log"
        # Phases of the engine that are no news for a person.
        self.hidden: frozenset[str] = frozenset()
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._on_progress = on_progress
        self._report = report
        self._redact = redact
        self._packages = PackageCount()
        self._lines: list[str] = []
        self._readers: dict[Stream, BarReader] = {
            "stdout": BarReader(self._lines.append, self._count),
            "stderr": BarReader(self._lines.append, self._count),
        }
        self._last = ""

    def open(self) -> None:
        """Make the file, and remove the oldest ones."""
        if self._report:
            return
        folder = make_private_dir(self.path.parent)
        os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        for old in sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)[:-KEPT_LOGS]:
            old.unlink(missing_ok=True)

    def begin(self, phase: str) -> None:
        """Tell what begins now, once."""
        if phase != self._last and phase not in self.hidden:
            self._last = phase
            self._packages = PackageCount()
            self._on_progress(phase)
            if self._report:
                self._report.begin(phase)

    def feed(self, stream: Stream, text: str) -> None:
        """Take what the engine prints, in whatever pieces it comes."""
        self._readers[stream].feed(text)
        self._add()

    def close(self) -> None:
        """Take the last lines, which have no end."""
        for reader in self._readers.values():
            reader.close()
        self._add()

    def _add(self) -> None:
        lines, self._lines[:] = [self._redact(line) for line in self._lines], []
        if not lines:
            return
        with self.path.open("a", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in lines)
        for line in lines:
            self.tail.append(line)
            phase = find_phase(line)
            if phase:
                self.begin(phase)
            elif self._packages.take(line):
                self._count(Bar(self._packages.done, self._packages.total, "items"))

    def _count(self, bar: Bar) -> None:
        if self._report:
            self._report.count(bar.done, bar.total, bar.unit)


class PackageCount:
    """How far apt is with the packages of its last call: it says how many there are, unpacks each and sets each up."""

    def __init__(self) -> None:
        self.done = 0
        self.total = 0

    def take(self, line: str) -> bool:
        """Take a line of output; say whether the count has changed."""
        if found := _NEW_PACKAGES.match(line):
            self.done, self.total = 0, 2 * (int(found[1]) + int(found[2]))
        elif self.done < self.total and _PACKAGE_STEP.match(line):
            self.done += 1
        else:
            return False
        return self.total > 0


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
