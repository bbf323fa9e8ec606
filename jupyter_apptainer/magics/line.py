"""An engine command line, taken apart as the engine does it: global flags, command, flags, arguments. Mistakes are named before it runs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..engine.flags import Flag, FlagTable
from ..errors import SpecError
from .manual import Manual

# What stands behind an image is the program's own: the engine reads no flags there.
_CONTAINER_COMMANDS = frozenset(
    {("exec",), ("run",), ("shell",), ("test",), ("instance", "start"), ("instance", "run")}
)
# How many arguments a command takes; None: any number. Only where its own message would say less.
_ARGUMENTS: Mapping[tuple[str, ...], tuple[int, int | None, tuple[str, ...]]] = {
    ("exec",): (2, None, ("IMAGE", "COMMAND")),
    ("run",): (1, None, ("IMAGE",)),
    ("shell",): (1, None, ("IMAGE",)),
    ("test",): (1, None, ("IMAGE",)),
    ("instance", "start"): (2, None, ("IMAGE", "NAME")),
    ("instance", "run"): (2, None, ("IMAGE", "NAME")),
    ("instance", "list"): (0, 1, ("NAME",)),
    ("build",): (2, 2, ("OUT", "SOURCE")),
    ("pull",): (1, 2, ("URI",)),
    ("push",): (2, 2, ("IMAGE", "URI")),
    ("inspect",): (1, 1, ("IMAGE",)),
    ("run-help",): (1, 1, ("IMAGE",)),
    ("sign",): (1, 1, ("IMAGE",)),
    ("verify",): (1, 1, ("IMAGE",)),
    ("search",): (1, 1, ("WORD",)),
    ("delete",): (1, 1, ("IMAGE",)),
    ("overlay", "create"): (1, 1, ("FILE",)),
    ("sif", "list"): (1, 1, ("IMAGE",)),
    ("sif", "header"): (1, 1, ("IMAGE",)),
    ("sif", "dump"): (2, 2, ("ID", "IMAGE")),
    ("key", "remove"): (1, 1, ("FINGERPRINT",)),
    ("key", "search"): (1, 1, ("WORD",)),
    ("registry", "login"): (1, 1, ("REGISTRY",)),
    ("registry", "logout"): (1, 1, ("REGISTRY",)),
}


@dataclass(frozen=True)
class EngineLine:
    """head: global flags and command, as typed. command: its words. flags: in order, "" for one without a value.

    tail: all that stands behind the command, as typed. arguments: what is no flag there; for a container command the image
    and all behind it. is_split: the command takes the words after its image unread.
    """

    head: tuple[str, ...]
    command: tuple[str, ...]
    flags: tuple[tuple[str, str], ...]
    tail: tuple[str, ...]
    arguments: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The line as typed."""
        return (*self.head, *self.tail)

    @property
    def is_container_command(self) -> bool:
        """Its first argument is an image, and what follows is for the program in it."""
        return self.command in _CONTAINER_COMMANDS

    @property
    def options(self) -> tuple[str, ...]:
        """The words between the command and its arguments, where the command takes no options after these."""
        return self.tail[: len(self.tail) - len(self.arguments)] if self.is_container_command else ()

    def has_flag(self, *names: str) -> bool:
        """Say whether one of these is there."""
        return any(name in names for name, _ in self.flags)

    def get_flag(self, name: str) -> str | None:
        """Return the last value of a flag."""
        return next((value for flag, value in reversed(self.flags) if flag == name), None)


def parse_line(manual: Manual, words: Sequence[str], *, has_body: bool = False) -> EngineLine:
    """Take the words apart. has_body: a cell brings what else would be an argument: a program's input, a recipe.

    Raises SpecError for a command or a flag that this engine does not have, a missing value, too few or too many arguments.
    """
    root = manual.get_page()
    start = _skip_global_flags(root.flags, words)
    command = manual.find_command(tuple(words[start:]))
    end = start + len(command)
    _check_command(manual, command, words[end:])
    page = manual.get_page(*command)
    reader = _Reader(page.flags, command)
    reader.read(words[end:])
    line = EngineLine(tuple(words[:end]), command, tuple(reader.flags), tuple(words[end:]), tuple(reader.arguments))
    if not line.has_flag("help"):
        _check_arguments(line, page.usage, has_body=has_body)
    return line


def suggest(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean …", or nothing."""
    near = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f"did you mean `{near[0]}`?" if near else ""


def _skip_global_flags(flags: FlagTable, words: Sequence[str]) -> int:
    index = 0
    while index < len(words) and words[index].startswith("-") and words[index] != "-":
        name, equals, _ = words[index].partition("=")
        flag = flags.find(name[2:]) if name.startswith("--") else flags.find_letter(name[1:2])
        if flag is None:
            near = flags.find_near(name.lstrip("-"))
            raise SpecError(
                f"the engine has no option {name} before its command",
                hint=f"did you mean --{near}?" if near else "options of a command stand after it",
            )
        index += 1
        if flag.has_value and not equals and not (not name.startswith("--") and len(name) > 2):
            index += 1
    return min(index, len(words))


def _check_command(manual: Manual, command: tuple[str, ...], rest: Sequence[str]) -> None:
    below = manual.get_page(*command).commands
    if not below or (rest and rest[0] in ("-h", "--help")):
        return
    group = " ".join(command)
    if not rest:
        raise SpecError(
            f"{f'`{group}`' if group else 'the line'} lacks a command",
            hint=f"one of {', '.join(below)}; `%apptainer help {group}`".replace(" `", "`", 0),
        )
    near = suggest(rest[0], below)
    place = f"`{group}` has no command" if group else "there is no command"
    raise SpecError(f"{place} {rest[0]!r}", hint=near or f"it has {', '.join(below)}")


def _check_arguments(line: EngineLine, usage: str, *, has_body: bool) -> None:
    least, most, names = _ARGUMENTS.get(line.command, (0, None, ()))
    if has_body:
        # A cell's body stands for the program or the recipe.
        least, most = min(least, 1), 1 if most == 2 else most
    shown = " ".join(line.command)
    count = len(line.arguments)
    if count < least:
        missing = names[count] if count < len(names) else "an argument"
        raise SpecError(f"`{shown}` lacks {missing}", hint=f"as in `%apptainer {usage}`" if usage else None)
    if most is not None and count > most:
        raise SpecError(
            f"`{shown}` takes {most or 'no'} argument{'s' if most != 1 else ''}, and there are {count}: "
            + ", ".join(map(repr, line.arguments)),
            hint=f"as in `%apptainer {usage}`; a name with blanks wants quotes" if usage else None,
        )


class _Reader:
    """Reads what stands behind the command."""

    def __init__(self, flags: FlagTable, command: tuple[str, ...]) -> None:
        self._table = flags
        self._command = command
        self.flags: list[tuple[str, str]] = []
        self.arguments: list[str] = []

    def read(self, words: Sequence[str]) -> None:
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if word == "--":
                self.arguments += rest
                return
            if word == "-" or not word.startswith("-"):
                self.arguments.append(word)
                if self._command in _CONTAINER_COMMANDS:
                    self.arguments += rest
                    return
            elif word.startswith("--"):
                self._read_long(word, rest)
            else:
                self._read_letters(word, rest)

    def _read_long(self, word: str, rest: list[str]) -> None:
        name, equals, value = word[2:].partition("=")
        flag = self._table.find(name)
        if flag is None:
            raise self._refuse(f"--{name}", self._table.find_near(name))
        if flag.has_value and not equals:
            value = self._take_value(f"--{name}", rest)
        self.flags.append((flag.name, value))

    def _read_letters(self, word: str, rest: list[str]) -> None:
        letters = word[1:]
        while letters:
            flag = self._table.find_letter(letters[0])
            if flag is None:
                near = self._table.find_near(word.lstrip("-")) if len(word) > 2 else None
                raise self._refuse(f"-{letters[0]}", near)
            letters = letters[1:]
            value = ""
            if flag.has_value:
                value = letters.removeprefix("=") or self._take_value(f"-{flag.letter}", rest)
                letters = ""
            self.flags.append((flag.name, value))

    def _take_value(self, shown: str, rest: list[str]) -> str:
        if not rest:
            raise SpecError(
                f"the option {shown} of `{' '.join(self._command)}` lacks its value",
                hint=f"`%apptainer help {' '.join(self._command)}` says what it takes",
            )
        return rest.pop(0)

    def _refuse(self, shown: str, near: str | None) -> SpecError:
        command = " ".join(self._command)
        return SpecError(
            f"`{command}` has no option {shown}",
            hint=f"did you mean --{near}?" if near else f"`%apptainer help {command}` lists them",
        )


__all__ = ["EngineLine", "Flag", "parse_line", "suggest"]
