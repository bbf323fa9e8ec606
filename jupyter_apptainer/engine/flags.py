"""The flags that the engine on this machine knows, read from its own `--help`.

What a person typed elsewhere is judged by this list and not by a copy of it: flavours and versions differ.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import EngineOutputError
from .command import Command, Completed
from .locate import EngineInfo

# "  -B, --bind stringArray   a user-bind path…", "      --nv   enable Nvidia support": two or more blanks end the type.
_FLAG = re.compile(r"^ {2,6}(?:-(\w), )?--([a-z][a-z0-9-]*)(?: (\S+))?(?: {2,}|$)", re.MULTILINE)
# "--cwd string   initial working directory … (synonym for --pwd)": the help leaves the older name out.
_SYNONYM = re.compile(r"--([a-z-]+) (?:(?! --).)*?\(synonym\s+for\s+--([a-z-]+)\)", re.DOTALL)


@dataclass(frozen=True)
class Flag:
    """`--name`, its one-letter form or "", and whether a value follows."""

    name: str
    letter: str
    has_value: bool


class FlagTable:
    """The flags of one command of the engine."""

    def __init__(self, flags: Iterable[Flag]) -> None:
        self._names: Mapping[str, Flag] = {flag.name: flag for flag in flags}
        self._letters: Mapping[str, Flag] = {flag.letter: flag for flag in self._names.values() if flag.letter}

    def find(self, name: str) -> Flag | None:
        """Return the flag of that name, without dashes."""
        return self._names.get(name)

    def find_letter(self, letter: str) -> Flag | None:
        """Return the flag with that one-letter form."""
        return self._letters.get(letter)

    def find_near(self, name: str) -> str | None:
        """Return the name that was probably meant."""
        near = difflib.get_close_matches(name.lower().replace("_", "-"), self._names, n=1)
        return near[0] if near else None


def build_help(engine: EngineInfo, words: tuple[str, ...], env: Mapping[str, str]) -> Command[FlagTable]:
    """`help exec`, `help instance start`: the flags of a command."""
    return Command(
        (engine.path, "help", *words), env, parse_help, f"ask for the flags of {' '.join(words)}", timeout_s=30
    )


def parse_help(completed: Completed) -> FlagTable:
    """Parse the engine's help. Raises EngineOutputError where it lists no flags."""
    flags = [Flag(name, letter, bool(kind)) for letter, name, kind in _FLAG.findall(completed.stdout)]
    if not flags:
        raise EngineOutputError(f"unexpected answer of {' '.join(completed.argv)}: it lists no flags")
    known = {flag.name: flag for flag in flags}
    older = [Flag(old, "", known[new].has_value) for new, old in _SYNONYM.findall(completed.stdout) if old not in known]
    return FlagTable([*flags, *older])
