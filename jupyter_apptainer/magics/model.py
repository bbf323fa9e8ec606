"""What a cell asks for, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import ApptainerError

# Commands whose cell has a body: it goes to a program, or is a recipe.
BODY_COMMANDS = ("build", "exec", "run", "shell-script")
OnText = Callable[[str, str], None]
"""Told "stdout" or "stderr", and what was printed there, as it comes."""


@dataclass(frozen=True)
class Request:
    """One command line.

    words: what stands behind `apptainer`, with variables replaced and quotes taken away. body: the cell's, or a password that a
    person gave; goes to standard input, but for `build`, where it is the recipe. cwd: where relative paths start. kernel: id of the
    container kernel that asks, through its bridge; empty for a kernel on the host.
    """

    words: tuple[str, ...]
    body: str | None = None
    cwd: str = "."
    kernel: str = ""


@dataclass(frozen=True)
class Value:
    """What a command answers beside what it prints.

    kind "table": `data` is a list of objects, shown with `columns` (key and heading); "record": one object, shown line by line;
    "plain": any JSON, as it is.
    """

    kind: Literal["table", "record", "plain"]
    data: Any
    columns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Answer:
    """How a command ended.

    returncode: 0 for success. stdout, stderr: all that it printed, also what `OnText` was told. value: None where there is only
    text. error: why it failed.
    """

    returncode: int
    stdout: str = ""
    stderr: str = ""
    value: Value | None = None
    error: ApptainerError | None = None


@dataclass(frozen=True)
class Completion:
    """A word that could stand where the cursor is, and what it means."""

    text: str
    description: str = ""
