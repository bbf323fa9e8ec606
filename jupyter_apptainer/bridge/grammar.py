"""Which program a command line is for, where that has to be known before it is admitted: the engine's words mean the engine's commands."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import SpecError

# `apptainer --help` and `singularity --help`, all versions that we support.
_WORDS = (
    "build cache capability checkpoint completion config data delete exec help inspect instance key keyserver oci overlay plugin "
    "pull push registry remote run run-help search shell sif sign test verify version"
)
ENGINE_WORDS = frozenset(_WORDS.split())
# Short for a command of the engine's.
ENGINE_ALIASES: Mapping[str, tuple[str, ...]] = {"apps": ("inspect", "--list-apps"), "ps": ("instance", "list")}
# A word of a cell, and the command of ours that it stands for.
OWN_WORDS: Mapping[str, tuple[str, ...]] = {
    "bind": ("bind",),
    "doctor": ("doctor",),
    "engine": ("engine",),
    "freeze": ("image", "freeze"),
    "gc": ("gc",),
    "gpu": ("gpu",),
    "image": ("image",),
    "images": ("image", "list"),
    "kernel": ("kernel",),
    "kernels": ("kernel", "ps"),
    "lock": ("image", "lock"),
    "quickstart": ("quickstart",),
    "restart": ("restart",),
    "tasks": ("tasks",),
}
STATUS = "status"
# Its own words of the engine that need a value, before the command.
_GLOBAL_WITH_VALUE = frozenset({"-c", "--config"})


@dataclass(frozen=True)
class Line:
    """globals: the engine's flags before its command. words: the command and what follows it."""

    program: Literal["engine", "own"]
    words: tuple[str, ...]
    globals: tuple[str, ...] = ()

    @property
    def asks_for_help(self) -> bool:
        """`build --help` and the like: nothing would be done."""
        return (
            bool(self.words) and self.words[-1] in ("--help", "-h") and not any(w[:1] == "-" for w in self.words[:-1])
        )


def read_line(words: Sequence[str]) -> Line:
    """Raises SpecError for a word that nobody knows, with the nearest one."""
    start = 0
    while start < len(words) and words[start].startswith("-"):
        start += 2 if words[start] in _GLOBAL_WITH_VALUE else 1
    first = words[start] if start < len(words) else ""
    if first in ENGINE_WORDS or (not first and start):
        return Line("engine", tuple(words[start:]), tuple(words[:start]))
    if first in ENGINE_ALIASES:
        return Line("engine", (*ENGINE_ALIASES[first], *words[start + 1 :]), tuple(words[:start]))
    if first in OWN_WORDS and not start:
        return Line("own", (*OWN_WORDS[first], *words[1:]))
    own = sorted({*ENGINE_ALIASES, *OWN_WORDS, STATUS})
    near = difflib.get_close_matches(first, [*ENGINE_WORDS, *own], n=1)
    shown = ascii(first[:60])
    raise SpecError(
        f"{shown} is no command" + (f"; nearest is `{near[0]}`" if near else ""),
        hint="`%apptainer help` lists the engine's commands; ours are " + ", ".join(own),
    )
