"""What IPython sees: the magic `apptainer`, for lines and for cells."""

from __future__ import annotations

import getpass
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, magics_class, needs_local_scope, no_var_expand

from ..bridge.lent.call import SpecError as LineError
from ..bridge.lent.expand import expand
from ..bridge.lent.options import MagicOptions, take_options
from ..bridge.lent.questions import ask_password
from ..bridge.lent.screen import Screen
from ..bridge.lent.words import split_words
from ..errors import ApptainerError, SpecError
from . import panel
from .completion import build_matcher
from .model import BODY_COMMANDS, Answer, Request
from .values import Result, build_value

if TYPE_CHECKING:
    from .host import Host
    from .jobs import Job
    from .variables import Exchange

_ENDS_WITH_MAGIC = re.compile(r"(?:^|\n)[ \t]*%?%apptainer[^\n]*\s*\Z")


@magics_class
class ApptainerMagics(Magics):
    """`%apptainer` and `%%apptainer`."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self._session = shell
        self._host: Host | None = None

    def get_host(self) -> Host:
        """Return what carries lines out; loaded at its first use, so that %load_ext takes no time."""
        if self._host is None:
            from .host import Host

            self._host = Host()
        return self._host

    @no_var_expand
    @needs_local_scope
    @line_cell_magic
    def apptainer(self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None) -> Any:
        """Run an `apptainer` command line, or a word of ours.

        %apptainer [OPTIONS] COMMAND …       what stands behind `apptainer` in a terminal
        %%apptainer [OPTIONS] build IMAGE    body: a definition file; with --dockerfile, --environment or --requirements one of these
        %%apptainer [OPTIONS] exec|run IMAGE [PROGRAM …]   body: the program's input (default: sh)

        OPTIONS, before the command:
          --out NAME, --err NAME   the output into a variable, not into the cell
          --bg, --proc NAME        in the background; NAME has pid, stdout, stderr, poll(), wait(), stop()
          --var NAME[:pickle]      a variable into a Python body, and back
          --no-raise-error         go on where it fails
          --quiet                  show nothing

        Words of ours: (none) or status, panel, images, ps, kernel …, image …, overlay …, doctor, gc; `%apptainer help` lists all.
        $name and {expression} are Python's, $NAME the environment's; inside of single quotes nothing is replaced. There is no shell:
        use !apptainer for pipes.

        Examples:
          %apptainer exec python.sif python --version
          rows = %apptainer instance list
          %apptainer --out text exec python.sif cat /etc/os-release
          %apptainer pull lab.sif docker://python:3.12-slim
        """
        try:
            namespace = {**self._session.user_ns, **(local_ns or {})}
            return self._run(expand(line, namespace), cell)
        except LineError as error:
            raise _shown_briefly(SpecError(error.message, hint=error.hint or "")) from None
        except ApptainerError as error:
            raise _shown_briefly(error) from None
        except KeyboardInterrupt as interrupt:
            raise _shown_briefly(interrupt) from None

    def _run(self, line: str, cell: str | None) -> Any:
        options, words = take_options(split_words(line, os.environ))
        if words == (panel.WORD,) and cell is None:
            return panel.open_panel()
        request = self._build_request(words, cell)
        if options.is_background:
            return self._start(options, request)
        exchange = None
        if options.variables:
            from .variables import Exchange

            if request.body is None:
                raise SpecError(
                    "--var needs lines below it, which use the variable", hint="`%%apptainer --var x exec IMAGE python`"
                )
            exchange = Exchange(options.variables, request.body, self._session.user_ns, words)
            request = Request(request.words, exchange.program, request.cwd)
        return self._wait(options, request, exchange)

    def _build_request(self, words: tuple[str, ...], cell: str | None) -> Request:
        if cell is None:
            answered = ask_password(words, getpass.getpass)
            return Request(*answered, os.getcwd()) if answered else Request(words, None, os.getcwd())
        if not words or words[0] not in BODY_COMMANDS:
            shown = words[0] if words else "status"
            raise SpecError(
                f"`{shown}` takes no lines below it",
                hint=f"write it with one per cent sign; a body is for {', '.join(BODY_COMMANDS)}",
            )
        return Request(words, cell, os.getcwd())

    def _start(self, options: MagicOptions, request: Request) -> Job | None:
        from .jobs import Job

        job = Job(request, lambda answer: self._set_outputs(options, answer))
        if options.proc:
            self._session.user_ns[options.proc] = job
            return None
        return job

    def _wait(self, options: MagicOptions, request: Request, exchange: Exchange | None) -> Any:
        hidden = {"stdout"} if options.out else set()
        hidden |= {"stderr"} if options.err else set()
        screen = Screen(
            {"stdout", "stderr"} if options.is_quiet else hidden,
            is_terminal=not hasattr(self._session, "kernel"),
        )
        try:
            answer = self.get_host().run(request, exchange.filter(screen.feed) if exchange else screen.feed)
        finally:
            screen.close()
        if exchange:
            answer = Answer(answer.returncode, exchange.strip(answer.stdout), answer.stderr, None, answer.error)
            self._session.user_ns.update(exchange.unpack())
        self._set_outputs(options, answer)
        if options.proc:
            self._session.user_ns[options.proc] = Result(answer.returncode, answer.stdout, answer.stderr, answer.error)
        if answer.error and options.raises:
            answer.error.log_tail = _leave_new(answer.error.log_tail, screen.shown)
            raise answer.error
        if answer.error and not options.is_quiet:
            print(answer.error, file=sys.stderr)
        return self._build_result(options, answer, is_cell=request.body is not None)

    def _set_outputs(self, options: MagicOptions, answer: Answer) -> None:
        if options.out:
            self._session.user_ns[options.out] = answer.stdout
        if options.err:
            self._session.user_ns[options.err] = answer.stderr

    def _build_result(self, options: MagicOptions, answer: Answer, *, is_cell: bool) -> Any:
        if answer.value is not None and not answer.error:
            is_hidden = options.out or (options.is_quiet and self._is_last_in_cell())
            return None if is_hidden else build_value(answer.value)
        if options.out or is_cell or self._is_last_in_cell():
            return None
        return Result(answer.returncode, answer.stdout, answer.stderr, answer.error)

    def _is_last_in_cell(self) -> bool:
        """Say whether the cell ends with the magic itself: then nobody takes its result, and a terminal would show a bare `Out`."""
        raw = getattr(self._session.history_manager, "input_hist_raw", None)
        return bool(raw and _ENDS_WITH_MAGIC.search(raw[-1]))


def load(shell: InteractiveShell) -> None:
    """Called by `%load_ext jupyter_apptainer`."""
    magics = ApptainerMagics(shell)
    shell.register_magics(magics)
    matcher = build_matcher(magics.get_host)
    unload(shell)
    shell.Completer.custom_matchers.append(matcher)


def unload(shell: InteractiveShell) -> None:
    """Called by `%unload_ext jupyter_apptainer`: Tab completes as before."""
    matchers = shell.Completer.custom_matchers
    matchers[:] = [each for each in matchers if getattr(each, "matcher_identifier", "") != build_matcher.__module__]


def _leave_new(lines: Sequence[str], shown: str) -> tuple[str, ...]:
    """Return the lines that neither the cell nor the message has already; the message says what is FATAL."""
    return tuple(line for line in lines if line.strip() not in shown and not line.startswith("FATAL:"))


def _shown_briefly(error: BaseException) -> BaseException:
    """Let IPython show the message alone: where in this package it was raised helps nobody."""
    lines = [f"{type(error).__name__}: {error}".removesuffix(": ")]
    if isinstance(error, ApptainerError) and error.log_tail:
        lines += ["Last lines:", *(f"  {line}" for line in error.log_tail)]
    error._render_traceback_ = lambda: lines  # type: ignore[attr-defined]  # IPython looks for this name on the exception
    return error
