"""What only a person can answer: passwords. Asked for in the cell, and kept nowhere: not in the notebook, not in a list of processes."""

# ruff: noqa: UP035 - the image's Python may be older than ours
from __future__ import annotations

from typing import Callable, Sequence

from .call import SpecError

Ask = Callable[[str], str]
_LOGINS = frozenset({("registry", "login"), ("keyserver", "login"), ("remote", "login")})


def ask_password(words: Sequence[str], ask: Ask) -> tuple[tuple[str, ...], str] | None:
    """Return the line and the standard input that answer a login, None where nothing is to be asked.

    Raises SpecError where nobody can be asked, and for a password in the cell, which a notebook would keep.
    """
    if len(words) > 1 and words[0] == "sign" and not {"-h", "--help"} & set(words):
        return _ask_passphrase(words, ask)
    if tuple(words[:2]) not in _LOGINS or {"-h", "--help"} & set(words):
        return None
    if any(word == "-p" or word.startswith(("-p=", "--password=")) or word == "--password" for word in words):
        raise SpecError(
            "a password in a cell would stay in the notebook", hint="leave the option out: you will be asked for it"
        )
    if words[0] == "registry" and not any(
        word in ("-u", "--username") or word.startswith("--username=") for word in words
    ):
        raise SpecError(
            "`registry login` lacks --username", hint="as in `%apptainer registry login -u ada docker://ghcr.io`"
        )
    try:
        password = ask(f"Password for {words[-1]}: ")
    except (EOFError, NotImplementedError, RuntimeError) as error:
        # StdinNotImplementedError of IPython is a NotImplementedError as well.
        raise SpecError(
            "there is nobody to ask for the password", hint="log in from a terminal first; the engine remembers it"
        ) from error
    options = () if "--password-stdin" in words else ("--password-stdin",)
    return (*words[:2], *options, *words[2:]), password


def _ask_passphrase(words: Sequence[str], ask: Ask) -> tuple[tuple[str, ...], str] | None:
    """A key may have none, so where nobody can be asked, the engine tries without."""
    try:
        return tuple(words), ask("Passphrase of the key (empty if it has none): ") + "\n"
    except (EOFError, NotImplementedError, RuntimeError):
        return None
