"""An engine command as a value: what to run, what its output means, how long it may take.

A `Command` does nothing by itself; `runner` runs it, synchronously or not, and `diagnose` explains a failure.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

Level = Literal["FATAL", "ERROR", "WARNING", "INFO", "VERBOSE", "DEBUG", "ABRT", "LOG"]

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# pkg/sylog/sylog.go and cmd/starter/c/message.c of Apptainer: "FATAL:   text", "ERROR  : text", "DEBUG   [U=0,P=1] f() text".
_LOG_LINE = re.compile(r"^(FATAL|ERROR|WARNING|INFO|VERBOSE|DEBUG|ABRT|LOG) *:? +(?:\[U=\d+,P=\d+\] *\S+\(\) +)?(.*)$")
_SECRET_NAME = re.compile(r"(?i)(token|secret|passw|passphrase|credential|api_?key|private_?key|auth)")
# A secret-looking name before an equals sign: the whole word, after a dash, or one of a list ("A=1,TOKEN=x").
_SECRET_ASSIGNMENT = re.compile(rf"(?:^|[,=])[\w-]*{_SECRET_NAME.pattern.removeprefix('(?i)')}[\w-]*=", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(://[^/@:\s]+):[^/\s]+@")
REDACTED = "…"


@dataclass(frozen=True)
class LogLine:
    """One line of the engine's own messages."""

    level: Level
    message: str


@dataclass(frozen=True)
class Completed:
    """A command that has ended. `returncode` is negative when a signal ended it, as subprocess has it."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    duration_s: float = 0.0

    @property
    def log_lines(self) -> tuple[LogLine, ...]:
        """The engine's messages from both streams: its C part prints INFO on standard output."""
        return parse_log_lines(self.stderr + "\n" + self.stdout)


def returns_nothing(_: Completed) -> None:
    """Parser for commands whose success is all there is to know."""


@dataclass(frozen=True)
class Command(Generic[T]):
    """What to run.

    argv: program and arguments; no shell ever sees them.
    env: the complete environment of the process.
    parse: makes the value from the output of a successful run.
    title: what it does, for people: "start instance jpa-1f3c".
    subject: the object it is about (an image, an instance), for error messages.
    timeout_s: after this many seconds the stop ladder begins; None waits for ever.
    ok_codes: exit statuses that count as success.
    patience_s: how long it may take to clean up after an interrupt, before it is ended by force; None for the ladder's own time.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    parse: Callable[[Completed], T]
    title: str
    subject: str = ""
    timeout_s: float | None = 60.0
    stdin: str | None = None
    cwd: str | None = None
    ok_codes: tuple[int, ...] = field(default=(0,))
    patience_s: float | None = None

    def render(self) -> str:
        """The command line for people and logs, with values of secret-looking variables and options left out."""
        return shlex.join(redact_argv(self.argv))


def redact_argv(argv: tuple[str, ...] | list[str]) -> list[str]:
    """Replace what looks like a secret: `--password X`, `--env TOKEN=X`, `TOKEN=X`, `https://user:password@host`."""
    shown: list[str] = []
    hide_next = False
    for word in argv:
        assignment = _SECRET_ASSIGNMENT.search(word)
        if hide_next:
            shown.append(REDACTED)
            hide_next = False
        elif assignment:
            # All that follows, because a value may itself contain a comma.
            shown.append(word[: assignment.end()] + REDACTED)
        elif word.startswith("--") and _SECRET_NAME.search(word) and not word.endswith(("-stdin", "file")):
            shown.append(word)
            hide_next = True
        else:
            shown.append(_URL_PASSWORD.sub(rf"\1:{REDACTED}@", word))
    return shown


def is_secret_name(name: str) -> bool:
    """Say whether a variable of this name should not be shown to people or written to logs."""
    return bool(_SECRET_NAME.search(name))


def strip_ansi(text: str) -> str:
    """Remove terminal control sequences; the engine's C part prints them even where there is no terminal."""
    return _ANSI.sub("", text)


def parse_log_lines(text: str) -> tuple[LogLine, ...]:
    """Pick the engine's own messages out of `text`; everything else is a program's output and left out."""
    found: list[LogLine] = []
    for line in strip_ansi(text).splitlines():
        match = _LOG_LINE.match(line)
        if match:
            level, message = match.groups()
            found.append(LogLine(level, message))  # type: ignore[arg-type]  # the pattern admits just these words
    return tuple(found)
