"""`%%apptainer build`: the body of a cell is a recipe, and `jupyter apptainer image build` makes the image of it.

The recipe becomes a file for that time, in the folder where the cell's relative paths start. What is said about a line of that file
is said about the line of the cell.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..errors import ApptainerError, SpecError
from .model import Answer, OnText, Request
from .own_words import run_own

# The option that names the source on the command line, and the file's name as people know it.
_SOURCES = {
    "--dockerfile": ".Dockerfile",
    "--environment": ".environment.yml",
    "--requirements": ".requirements.txt",
}
_ENGINE_FLAGS = {"-F": "--force", "-f": "", "--fakeroot": ""}


def build_from_cell(words: tuple[str, ...], request: Request, on_text: OnText, environ: Mapping[str, str]) -> Answer:
    """words: what stands behind `build`. Raises SpecError for an empty body."""
    body = request.body or ""
    if not body.strip():
        raise SpecError(
            "there is no recipe below the line", hint="a definition file begins with `Bootstrap: docker`, `From: …`"
        )
    source, rest = _take_source(words)
    with _written(body, request.cwd, _SOURCES.get(source, ".def")) as path:
        line = ("image", "build", *rest, source or "--def", path.name)
        mend = _Lines(path.name, request.cwd)
        answer = run_own(
            line, replace(request, body=None), lambda stream, text: on_text(stream, mend.replace(text)), environ
        )
        return replace(
            answer,
            stdout=mend.replace(answer.stdout),
            stderr=mend.replace(answer.stderr),
            error=_mend_error(answer.error, mend),
        )


def _take_source(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the option that says what the body is, "" for a definition, and the others as `image build` takes them."""
    chosen = [word for word in words if word in _SOURCES]
    if len(chosen) > 1:
        raise SpecError(f"the body is one recipe: {' or '.join(chosen)}, not both")
    if "--detach" in words:
        # The recipe's file goes with the cell.
        raise SpecError("--detach is for a recipe in a file", hint="`%%apptainer --bg build …` does not wait either")
    rest = [_ENGINE_FLAGS.get(word, word) for word in words if word not in _SOURCES]
    return (chosen[0] if chosen else ""), [word for word in rest if word]


@contextmanager
def _written(body: str, cwd: str, suffix: str) -> Iterator[Path]:
    """Write the recipe; the same text has the same name, so that what was built of it before is found again."""
    name = f".cell-{hashlib.sha256(body.encode()).hexdigest()[:8]}{suffix}"
    path = Path(cwd, name)
    try:
        path.write_text(body, encoding="utf-8")
    except OSError as error:
        raise SpecError(
            f"the recipe cannot be written into {os.path.abspath(cwd)}: {error.strerror}",
            hint="build in a folder that is yours: `%cd ~`",
        ) from error
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


class _Lines:
    """Puts "line 7 of the cell" where a message names line 6 of the file: the magic's own line is the first."""

    def __init__(self, name: str, cwd: str) -> None:
        place = rf"(?:{re.escape(os.path.abspath(cwd))}/|\./)?{re.escape(name)}"
        self._with_line = re.compile(rf"{place}(?::| line |, line )(\d+)")
        self._alone = re.compile(place)

    def replace(self, text: str) -> str:
        text = self._with_line.sub(lambda match: f"line {int(match[1]) + 1} of the cell", text)
        return self._alone.sub("the cell", text)


def _mend_error(error: ApptainerError | None, lines: _Lines) -> ApptainerError | None:
    if error:
        error.message = lines.replace(error.message)
        error.hint = error.hint and lines.replace(error.hint)
        error.log_tail = tuple(map(lines.replace, error.log_tail))
    return error
