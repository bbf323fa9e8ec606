"""Carries out a line of a cell on this host: finds out whose word it is, and has it done."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from ..errors import ApptainerError, EngineNotFound, SpecError
from . import services
from .cell_build import build_from_cell
from .context import Context, find_context
from .engine_words import EngineFailed, clean_lines, run_engine
from .help import show_help
from .inspection import inspect_image
from .line import EngineLine, parse_line, suggest
from .model import Answer, OnText, Request
from .own_words import find_own_command, list_own_words, run_own
from .status import describe_host

# They are about the container that a kernel runs in.
_CONTAINER_WORDS = frozenset({"bind", "restart"})


class Host:
    """This host, for the cells of one kernel. Finds the engine at its first use."""

    def __init__(self) -> None:
        self._context: Context | None = None

    def get_context(self) -> Context:
        """Return engine and folders. Raises EngineNotFound."""
        if self._context is None:
            self._context = find_context()
        return self._context

    def run(self, request: Request, on_text: OnText) -> Answer:
        """Carry it out to its end; what fails is an answer with an error. KeyboardInterrupt ends it through the stop ladder."""
        try:
            return self._dispatch(request, on_text)
        except EngineFailed as failed:
            done = failed.completed
            return Answer(done.returncode, done.stdout, clean_lines(done.stderr), None, failed.error)
        except ApptainerError as error:
            return Answer(2 if isinstance(error, SpecError) else 1, error=error)

    def _dispatch(self, request: Request, on_text: OnText) -> Answer:
        words = request.words
        if not words or words[0] == "status":
            return describe_host(self._find_context())
        if words[0] == "help" or words in (("-h",), ("--help",)):
            return show_help(self._find_context(), words[1:], request, on_text)
        if words[0] == "ps":
            return self._run_engine(replace(request, words=("instance", "list", *words[1:])), on_text)
        if words[0] == "apps":
            return self._run_engine(replace(request, words=("inspect", "--list-apps", *words[1:])), on_text)
        if words[0] == "build" and request.body is not None:
            return build_from_cell(words[1:], request, on_text, os.environ)
        if words[0] in _CONTAINER_WORDS:
            return run_own(build_restart(request), request, on_text, os.environ)
        own = find_own_command(words) if words[0] not in self._list_engine_words() else None
        if own is not None:
            return run_own(own, request, on_text, os.environ)
        return self._run_engine(request, on_text)

    def _find_context(self) -> Context | None:
        try:
            return self.get_context()
        except EngineNotFound:
            return None

    def _list_engine_words(self) -> Mapping[str, str]:
        context = self._find_context()
        return context.manual.get_page().commands if context else {}

    def _run_engine(self, request: Request, on_text: OnText) -> Answer:
        context = self.get_context()
        words = request.words
        if words[:2] == ("instance", "logs"):
            return services.show_logs(context, words[2:], on_text)
        if words[0] == "shell-script":
            request = replace(request, words=("exec", *words[1:]))
        self._check_first_word(context, request.words)
        line = self._parse(context, request)
        if line.command[:1] == ("instance",) and not line.has_flag("help", "user"):
            return self._run_service(context, line, request, on_text)
        if line.command == ("inspect",) and set(line.flags) == set():
            return inspect_image(context, line, request, on_text)
        return run_engine(context, line, request, on_text)

    def _parse(self, context: Context, request: Request) -> EngineLine:
        line = parse_line(context.manual, request.words, has_body=request.body is not None)
        if line.is_container_command and line.arguments and line.arguments[0] == "instance://this":
            raise _explain_host_kernel("instance://this")
        if line.command == ("exec",) and len(line.arguments) == 1:
            # The body of a cell without a program is for the shell that every image has.
            return replace(line, tail=(*line.tail, "sh"), arguments=(*line.arguments, "sh"))
        return line

    def _run_service(self, context: Context, line: EngineLine, request: Request, on_text: OnText) -> Answer:
        match line.command[1:]:
            case ("list",):
                return services.list_services(context, line)
            case ("stats",):
                return services.show_stats(context, line)
            case ("stop",):
                return services.stop_services(context, line, request, on_text)
            case ("start",) | ("run",):
                return services.start_service(context, line, request, on_text)
        return run_engine(context, line, request, on_text)

    def _check_first_word(self, context: Context, words: tuple[str, ...]) -> None:
        """Name the nearest word, of the engine's and of ours."""
        known = context.manual.get_page().commands
        if words[0].startswith("-") or words[0] in known:
            return
        raise SpecError(
            f"there is no command {words[0]!r}",
            hint=suggest(words[0], [*known, *list_own_words()]) or "`%apptainer help` lists them",
        )


def build_restart(request: Request) -> tuple[str, ...]:
    """Return the command of ours for `restart …`, or for `bind SRC[:DEST]…`, which counts from the next start."""
    word, *rest = request.words
    if not request.kernel:
        raise _explain_host_kernel(word)
    if word == "restart":
        return ("kernel", "restart", request.kernel, *rest)
    if not rest:
        raise SpecError("`bind` lacks SRC[:DEST]", hint="`%apptainer` alone shows what is bound")
    binds = [part for bind in rest for part in ("--bind", bind)]
    return ("kernel", "restart", request.kernel, "--later", *binds)


def _explain_host_kernel(word: str) -> SpecError:
    return SpecError(
        f"{word}: this notebook's kernel runs on the host, in no container",
        hint="make a container kernel with `%apptainer kernel add NAME IMAGE`, and choose it: Kernel > Change Kernel",
    )
