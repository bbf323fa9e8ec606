"""The magic's own options, which stand before the command: where the output goes, whether to wait, what is raised."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .call import SpecError

FLAGS = {
    "--bg": "run in the background; --proc NAME is the way to it",
    "--no-raise-error": "go on where the command fails",
    "--quiet": "show nothing of what it prints",
}
VALUES = {
    "--out": "set this variable to what it prints on standard output, and do not show it",
    "--err": "set this variable to what it prints on standard error, and do not show it",
    "--proc": "set this variable to the command, as it runs in the background or as it has ended",
    "--var": "pass this variable to the body of a Python cell, and fetch it back; NAME, or NAME:pickle (again for more)",
}


@dataclass(frozen=True)
class MagicOptions:
    """See FLAGS and VALUES. variables: names with "json" or "pickle"."""

    is_background: bool = False
    is_quiet: bool = False
    raises: bool = True
    out: str | None = None
    err: str | None = None
    proc: str | None = None
    variables: tuple[tuple[str, str], ...] = field(default=())


def take_options(words: Sequence[str]) -> tuple[MagicOptions, tuple[str, ...]]:
    """Return the options at the beginning of `words`, and what follows them.

    `--var` may also follow the command, as in `exec --var x IMAGE python`. Raises SpecError for a value that is missing or no name.
    """
    options, rest = MagicOptions(), list(words)
    while rest and rest[0] in (*FLAGS, *VALUES):
        options = _take_one(options, rest)
    command = rest[:1]
    del rest[:1]
    while rest and command[:1] in (["exec"], ["run"]) and rest[0] == "--var":
        options = _take_one(options, rest)
    _check_spelling(command)
    if options.is_background and (options.variables or options.is_quiet):
        raise SpecError("--bg shows nothing and fetches nothing, so it does not go with --quiet or --var")
    if options.variables and command[:1] not in (["exec"], ["run"]):
        raise SpecError("--var is for cells: `%%apptainer --var NAME exec IMAGE python`")
    return options, (*command, *rest)


def _take_one(options: MagicOptions, rest: list[str]) -> MagicOptions:
    word = rest.pop(0)
    if word == "--bg":
        return replace(options, is_background=True)
    if word == "--quiet":
        return replace(options, is_quiet=True)
    if word == "--no-raise-error":
        return replace(options, raises=False)
    if not rest:
        raise SpecError(f"{word} lacks its value", hint=f"as in `%apptainer {word} NAME …`: {VALUES[word]}")
    value = rest.pop(0)
    if word == "--var":
        return replace(options, variables=(*options.variables, _parse_variable(value)))
    name = _check_name(word, value)
    if word == "--out":
        return replace(options, out=name)
    return replace(options, err=name) if word == "--err" else replace(options, proc=name)


def _parse_variable(text: str) -> tuple[str, str]:
    name, _, form = text.partition(":")
    if form not in ("", "json", "pickle"):
        raise SpecError(
            f"--var {text}: {form!r} is no form", hint=f"`{name}` travels as JSON, `{name}:pickle` as a pickle"
        )
    return _check_name("--var", name), form or "json"


def _check_name(option: str, name: str) -> str:
    if not name.isidentifier():
        raise SpecError(f"{option} {name}: this cannot be the name of a variable", hint=VALUES[option])
    return name


def _check_spelling(command: Sequence[str]) -> None:
    """A slip in an option of ours would otherwise be an option that the engine does not have."""
    if command and command[0].startswith("--"):
        near = difflib.get_close_matches(command[0], [*FLAGS, *VALUES], n=1, cutoff=0.8)
        if near:
            raise SpecError(f"there is no option {command[0]}", hint=f"did you mean {near[0]}?")
