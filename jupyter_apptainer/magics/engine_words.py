"""Runs one command of the engine for a cell: with the flags that this host makes necessary, and without leaving anything half-made."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..engine.command import Command, Completed
from ..engine.diagnose import describe_status, diagnose
from ..engine.locate import build_flags, build_wrapper, run_flags
from ..engine.runner import Runner
from ..errors import ApptainerError, CommandError, SpecError
from ..images.starter import remove_build_folder
from .context import Context
from .line import EngineLine
from .missing_files import advise_bind
from .model import Answer, OnText, Request, Value
from .relay import EngineRelay

# Programs that wait for what a person types, where nothing else is on the line.
_INTERACTIVE = frozenset(
    [
        "sh",
        "bash",
        "zsh",
        "dash",
        "ksh",
        "fish",
        "python",
        "python2",
        "python3",
        "ipython",
        "R",
        "julia",
        "node",
        "irb",
        "ghci",
    ]
)
# They draw their progress on a terminal only.
_WITH_PROGRESS = frozenset({("pull",), ("push",), ("build",)})
_ENGINE_FAILED = re.compile(r"^(?:FATAL|ERROR) *:", re.MULTILINE)
_JSON_FLAGS = ("json",)


class EngineFailed(Exception):
    """A command has failed, and has printed something. `error` says why."""

    def __init__(self, error: ApptainerError, completed: Completed) -> None:
        super().__init__(str(error))
        self.error = error
        self.completed = completed


def run_engine(context: Context, line: EngineLine, request: Request, on_text: OnText) -> Answer:
    """Run it to its end. Raises EngineFailed, and SpecError for what cannot work in a cell."""
    _refuse_interactive(line, request)
    wants_json = line.has_flag(*_JSON_FLAGS) or (line.command == ("inspect",) and line.has_flag("all"))
    has_bars = line.command in _WITH_PROGRESS
    relay = EngineRelay(_ignore_output(on_text) if wants_json else on_text, has_bars=has_bars)
    command = build_command(context, line, request)
    with nothing_half_made(line, request):
        try:
            completed = Runner().complete(command, on_text=relay.feed, use_pty=has_bars)
        finally:
            relay.close()
        error = explain_end(command, completed, line, request)
        if error:
            raise EngineFailed(error, completed)
    value = Value("plain", parse_json(completed)) if wants_json else None
    return Answer(0, completed.stdout, clean_lines(completed.stderr), value)


def build_command(context: Context, line: EngineLine, request: Request) -> Command[Completed]:
    """Return the command as a terminal would start it."""
    flags = run_flags(context.engine) if line.is_container_command else ()
    wrapper: tuple[str, ...] = ()
    if line.command == ("build",) and not line.has_flag("remote"):
        wrapper = build_wrapper()
        flags = () if line.has_flag("fakeroot") else build_flags(context.engine)
    return Command(
        argv=(*wrapper, context.engine.path, *line.head, *flags, *line.tail),
        env=context.environ,
        parse=lambda completed: completed,
        title=_name(line),
        subject=_find_subject(line),
        timeout_s=None,
        stdin=request.body,
        cwd=request.cwd,
    )


def explain_end(
    command: Command[Completed], completed: Completed, line: EngineLine, request: Request
) -> ApptainerError | None:
    """Return why a command failed, None where it did not."""
    if completed.returncode == 0:
        return None
    error = diagnose(completed, title=command.title, subject=command.subject, shown=command.render())
    if type(error) is CommandError and line.is_container_command and not _ENGINE_FAILED.search(completed.stderr):
        where = os.path.basename(command.subject) or command.subject
        program = f"{line.arguments[1]} in {where}" if line.command == ("exec",) else where
        error.message = f"{program} ended with {describe_status(completed.returncode)}"
    hint = advise_bind(completed.stderr, line, request.cwd) if line.command in (("exec",), ("run",)) else None
    if hint:
        error.hint = hint
    return error


def clean_lines(text: str) -> str:
    """Return what a terminal would show in the end: of a line that was drawn again and again, the last state."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


def parse_json(completed: Completed) -> object:
    """Return the JSON that a command printed; its text where it is none after all."""
    try:
        return json.loads(completed.stdout)
    except ValueError:
        return completed.stdout


def _ignore_output(on_text: OnText) -> OnText:
    return lambda stream, text: on_text(stream, text) if stream == "stderr" else None


def _find_subject(line: EngineLine) -> str:
    """Return what a failure is about: of `pull FILE URI` and `push FILE URI` what is asked of the registry."""
    at = -1 if line.command in (("pull",), ("push",)) else 0
    return line.arguments[at] if line.arguments else ""


def _name(line: EngineLine) -> str:
    if line.command == ("exec",) and len(line.arguments) > 1:
        return f"run {os.path.basename(line.arguments[1])} in {line.arguments[0]}"
    return " ".join((*line.command, *line.arguments[:1]))


def _refuse_interactive(line: EngineLine, request: Request) -> None:
    shown = " ".join(("apptainer", *line.words))
    terminal = f"open a terminal (File > New > Terminal) and type `{shown}`"
    if line.has_flag("help"):
        return
    if line.command == ("shell",):
        raise SpecError(
            "an interactive shell cannot run in a cell",
            hint=f"{terminal}; or write its lines below `%%apptainer exec {' '.join(line.tail)}`",
        )
    program = os.path.basename(line.arguments[-1]) if len(line.arguments) == 2 else ""
    if line.command == ("exec",) and program in _INTERACTIVE and request.body is None:
        raise SpecError(
            f"{program} would wait for somebody who types, and a cell cannot",
            hint=f"write its lines below `%%apptainer {' '.join(line.words)}`, or {terminal}",
        )
    if line.command == ("key", "newpair") and not line.has_flag("password"):
        raise SpecError(
            "the engine asks for the passphrase of a new key on a terminal only",
            hint=f"{terminal}; or, for a key without one, add --password ''",
        )


@contextmanager
def nothing_half_made(line: EngineLine, request: Request) -> Iterator[None]:
    """Remove the file that an unfinished command has begun, unless it was there before."""
    target = _find_target(line, request.cwd)
    was_there = target is None or os.path.lexists(target)
    try:
        yield
    except BaseException:
        if target and not was_there and os.path.lexists(target):
            target.unlink() if not target.is_dir() else remove_build_folder(target)
        raise


def _find_target(line: EngineLine, cwd: str) -> Path | None:
    if not line.arguments:
        # `build --help` makes nothing.
        return None
    if line.command == ("build",):
        return Path(cwd, line.arguments[0])
    if line.command == ("overlay", "create"):
        return Path(cwd, line.arguments[0])
    if line.command == ("pull",):
        folder = Path(cwd, line.get_flag("dir") or "")
        return folder / (line.arguments[0] if len(line.arguments) == 2 else _guess_pulled_name(line.arguments[0]))
    return None


def _guess_pulled_name(uri: str) -> str:
    """Return the name that the engine gives to an image: `python_3.12.sif` of docker://python:3.12."""
    name = uri.partition("://")[2].rpartition("/")[2].partition("@")[0]
    base, _, tag = name.partition(":")
    return f"{base}_{tag or 'latest'}.sif"
