"""RUN: shell, exec and here-document forms; each runs as Docker runs it, in a shell of its own, in the working directory."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from ..write import build_command, build_print, build_subshell, is_misread
from .instructions import Instruction
from .secret_mount import parse_secret_mount
from .state import DEFAULT_SHELL, StageState

_HEREDOC_ALONE = re.compile(r"^<<-?['\"]?[^\s'\"]+['\"]?$")


def add_run(state: StageState, instruction: Instruction) -> None:
    """Translate one RUN."""
    if not state.has_shell:
        state.report(
            instruction,
            "error",
            "no-shell",
            "nothing can run in this stage: its image has no shell",
            "run it in a stage with one, and copy the result with COPY --from",
        )
        return
    _report_flags(state, instruction)
    state.is_scripted = True
    state.add("", *_build_progress(instruction))
    if state.workdir.known != "/":
        # Again for each, for the folder may have been made anew.
        state.add(f"cd {state.workdir.shell}")
    secrets = [each for each in map(parse_secret_mount, _iter_mounts(instruction)) if each]
    state.add(*[line for secret in secrets for line in secret.begin])
    state.add(*_build_body(state, instruction))
    state.add(*[line for secret in secrets for line in secret.end])
    state.end_layer()


def _build_body(state: StageState, instruction: Instruction) -> list[str]:
    if instruction.is_json:
        words = [shlex.quote(word) for word in instruction.words]
        if any(is_misread(word) for word in instruction.words):
            return build_command(instruction.words[:-1], instruction.words[-1])
        first, *rest = " ".join(words).split("\n")
        return [first, *(f"\0{line}" for line in rest)]
    text = instruction.words[0] if instruction.words else ""
    if instruction.heredocs and _HEREDOC_ALONE.match(text.strip()):
        content = instruction.heredocs[0].content
        return _build_program(content) if content.startswith("#!") else _run_in_shell(state, content)
    documents = "".join(f"\n{each.content}{each.name}" for each in instruction.heredocs)
    return _run_in_shell(state, text + documents)


def _run_in_shell(state: StageState, script: str) -> list[str]:
    if state.shell == DEFAULT_SHELL:
        return build_subshell(script)
    return build_command(state.shell, script)


def _iter_mounts(instruction: Instruction) -> Iterator[str]:
    return (value for name, value in instruction.flags if name == "mount")


def _build_program(content: str) -> list[str]:
    """A here-document with an interpreter in its first line is a program."""
    first, *rest = build_print(content)
    return [first, *rest[:-1], f"{rest[-1]} >/.run", "chmod +x /.run", "/.run", "rm /.run"]


def _build_progress(instruction: Instruction) -> list[str]:
    return [f"# Dockerfile line {instruction.line}", f"printf '%s\\n' {shlex.quote(f'== {instruction.short}')}"]


def _report_flags(state: StageState, instruction: Instruction) -> None:
    for name, value in instruction.flags:
        kind = next((part.partition("=")[2] for part in value.split(",") if part.startswith("type=")), "bind")
        if name == "mount" and kind == "cache":
            state.report(
                instruction, "note", "mount-cache", f"the cache of {value} is not mounted: what is written there stays"
            )
        elif name == "mount" and kind == "secret" and parse_secret_mount(value):
            state.report(
                instruction,
                "note",
                "mount-secret",
                f"--mount={value}: the command finds it where the build is given it",
                "`--secret id=NAME,src=FILE` or `--secret id=NAME,env=VARIABLE`",
            )
        elif name == "mount" and kind in ("secret", "ssh"):
            state.report(
                instruction,
                "warning",
                "mount-secret",
                f"--mount={value} is left out: the command will not find it",
                "`--mount=type=secret,id=NAME` and `--secret id=NAME,src=FILE` bring a file such as a key",
            )
        elif name == "mount" and kind == "bind":
            state.report(
                instruction,
                "warning",
                "mount-bind",
                f"--mount={value} is left out: the command will not find it",
                "write a COPY above it",
            )
        elif name in ("network", "security"):
            state.report(instruction, "note", "run-flag", f"--{name}={value} is left out: it has no counterpart")
