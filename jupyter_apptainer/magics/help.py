"""`help` and `help COMMAND`: the engine's own pages, and those of our words."""

from __future__ import annotations

from ..errors import EngineNotFound, SpecError
from . import panel
from .context import Context
from .engine_words import run_engine
from .line import parse_line, suggest
from .model import Answer, OnText, Request
from .own_words import find_own_command, list_own_words, run_own

SUMMARY = """\
%apptainer [OPTIONS] COMMAND …     any command line of apptainer
%%apptainer [OPTIONS] build …      the cell's body is the recipe
%%apptainer [OPTIONS] exec | run … the body is the program's input
"""


def show_help(context: Context | None, words: tuple[str, ...], request: Request, on_text: OnText) -> Answer:
    """words: the command that is asked about; none for a list of all."""
    if not words:
        return _list_all(context, on_text)
    if words == (panel.WORD,):
        on_text("stdout", f"%apptainer {panel.WORD}: {panel.HELP}\n")
        return Answer(0, panel.HELP)
    known = context.manual.get_page().commands if context else {}
    own = find_own_command(words) if words[0] not in known else None
    if own:
        return run_own((*own, "--help"), request, on_text, context.environ if context else {})
    if context is None:
        raise EngineNotFound("no apptainer or singularity found on PATH or in our own folder")
    if words[0] not in known:
        raise SpecError(
            f"there is no command {words[0]!r}",
            hint=suggest(words[0], [*known, *list_own_words()]) or "see `%apptainer help`",
        )
    line = parse_line(context.manual, (*words, "--help"))
    return run_engine(context, line, request, on_text)


def _list_all(context: Context | None, on_text: OnText) -> Answer:
    rows = [("of the engine:", ""), *(sorted(context.manual.get_page().commands.items()) if context else [])]
    rows += [("", ""), ("of ours:", ""), *sorted(list_own_words().items())]
    text = SUMMARY + "\n" + "\n".join(f"  {name:12} {what}".rstrip() if what else name for name, what in rows) + "\n"
    on_text("stdout", text)
    return Answer(0, text)
