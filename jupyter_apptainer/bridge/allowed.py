"""What the policy `read` admits: an explicit list of commands, their flags and the form of their words.

Everything else is refused, also what would be harmless. A command is listed only where it starts no program of an image, writes no
file of the caller's choice, and reads none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import PolicyError

_COMMAND_WORD = re.compile(r"[a-z][a-z-]{0,29}")
_INSTANCE = re.compile(r"[A-Za-z0-9_.*?\[\]-]{1,64}")
# Looked up among the images that are known, and replaced by what is found.
IMAGE = re.compile(r"[^-].{0,4000}", re.DOTALL)


@dataclass(frozen=True)
class Allowed:
    """One command. flags: exactly as written, none has a value. form: of the words behind it. most: how many of them."""

    program: str
    words: tuple[str, ...]
    flags: frozenset[str] = frozenset()
    form: re.Pattern[str] = _COMMAND_WORD
    most: int = 0


_JSON = frozenset({"--json"})
_JSON_LETTER = frozenset({"--json", "-j"})
ALLOWED: tuple[Allowed, ...] = (
    Allowed("engine", ("version",)),
    Allowed("engine", ("help",), most=3),
    Allowed("engine", ("instance", "list"), _JSON_LETTER, _INSTANCE, 1),
    Allowed("engine", ("instance", "stats"), _JSON_LETTER | {"--no-stream"}, _INSTANCE, 1),
    Allowed("engine", ("cache", "list"), frozenset({"--verbose", "-v"})),
    Allowed("own", ("engine", "info"), _JSON),
    Allowed("own", ("image", "list"), _JSON),
    Allowed("own", ("image", "inspect"), _JSON, IMAGE, 1),
    Allowed("own", ("kernel", "list"), _JSON),
    Allowed("own", ("kernel", "ps"), _JSON),
    Allowed("own", ("gpu",), _JSON | {"--all"}),
    Allowed("own", ("tasks", "list"), _JSON),
    Allowed("own", ("tasks", "show"), _JSON, re.compile(r"[0-9a-f]{4,64}"), 1),
    Allowed("own", ("tasks",), _JSON),
)


def check_allowed(program: str, words: Sequence[str], level: str) -> Allowed:
    """Return the row that admits the command line under `read`. Raises PolicyError, which says why there is none."""
    row = next((row for row in ALLOWED if row.program == program and tuple(words[: len(row.words)]) == row.words), None)
    if row is None:
        raise refuse(" ".join(words[:2]) or "this", level, "it is not among the commands that only read")
    command = " ".join(row.words)
    rest = words[len(row.words) :]
    flags = [word for word in rest if word.startswith("-")]
    for flag in flags:
        if flag not in row.flags:
            admitted = ", ".join(sorted(row.flags)) or "none"
            raise refuse(f"{command} {flag}", level, f"of its flags these only read: {admitted}")
    others = [word for word in rest if not word.startswith("-")]
    if len(others) > row.most:
        raise refuse(f"{command} {others[row.most]}", level, f"it takes {row.most or 'no'} words here")
    for word in others:
        if not row.form.fullmatch(word):
            raise refuse(f"{command} {word}", level, "a word has a form that is not expected here")
    return row


def refuse(what: str, level: str, reason: str) -> PolicyError:
    """Return the error that refuses `what`, whose words the container chose."""
    shown = what if what.isprintable() else ascii(what)
    shown = shown if len(shown) <= 100 else shown[:99] + "…"
    return PolicyError(
        f"`{shown}` is refused: the bridge of this kernel is `{level}`, and {reason}",
        hint="who trusts the code in this kernel can open it: `jupyter apptainer kernel edit NAME --bridge full` in a terminal of the host, then start "
        "the kernel again; with it the container is no security boundary",
    )
