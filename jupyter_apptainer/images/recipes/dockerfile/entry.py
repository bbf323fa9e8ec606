"""ENTRYPOINT and CMD: what `run` and `instance start` do, with arguments as Docker has them."""

from __future__ import annotations

import shlex

from ..write import build_command
from .instructions import Instruction
from .state import StageState


def finish_entry(state: StageState) -> None:
    """Write %runscript and %startscript; without ENTRYPOINT and CMD those of the base image stay."""
    entry, command = state.entrypoint, state.command
    if entry is None and command is None:
        return
    if entry is not None and not entry.words and command is None:
        return
    lines = _enter_workdir(state)
    if entry is not None and entry.words:
        lines += _build_entry(state, entry, command)
    elif command is not None:
        lines += _build_command(state, command)
    state.draft.runscript = lines
    state.draft.startscript = ['exec /.singularity.d/runscript "$@"']


def _enter_workdir(state: StageState) -> list[str]:
    if state.workdir.known == "/":
        return []
    return [f"cd {state.workdir.shell}"]


def _build_entry(state: StageState, entry: Instruction, command: Instruction | None) -> list[str]:
    if not entry.is_json:
        # Docker gives a shell's text no arguments, and leaves CMD out.
        return _exec(state, entry)
    lines = _prepare_tini(state, entry)
    if command is not None and command.words:
        words = _quote(command.words) if command.is_json else _quote((*state.shell, command.words[0]))
        lines += [f"[ $# -gt 0 ] || set -- {words}"]
    return [*lines, f'exec {_quote(entry.words)} "$@"']


def _prepare_tini(state: StageState, entry: Instruction) -> list[str]:
    if entry.words[0].rpartition("/")[2] not in ("tini", "tini-static"):
        return []
    state.report(
        entry,
        "note",
        "tini",
        "tini is not process 1 here; it is told to look after orphans all the same (TINI_SUBREAPER)",
    )
    return ["export TINI_SUBREAPER=1"]


def _build_command(state: StageState, command: Instruction) -> list[str]:
    return ['[ $# -eq 0 ] || exec "$@"', *_exec(state, command)]


def _exec(state: StageState, instruction: Instruction) -> list[str]:
    if instruction.is_json:
        return [f"exec {_quote(instruction.words)}"]
    return build_command(("exec", *state.shell), " ".join(instruction.words))


def _quote(words: tuple[str, ...]) -> str:
    return " ".join(shlex.quote(word) for word in words)
