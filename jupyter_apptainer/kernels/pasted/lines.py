"""The lines of a script as a shell would put them together, and what is wrong with the file itself.

Byte order mark, line ends of Windows, the first line, job options behind commands, broken continuations, here-documents,
characters that a text editor put in the place of plain ones.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..remarks import Remarks
from .words import UnclosedQuote, Word, WordReader

_ENGINE = re.compile(r"apptainer|singularity")
_SHELLS = frozenset({"sh", "bash", "dash", "ksh", "mksh", "zsh", "ash"})
_BATCH = re.compile(r"#(SBATCH|PBS|BSUB|\$)\b")
_BATCH_MISSPELT = re.compile(r"(?:# +SBATCH|#SBATC\b|#SBACTH|#SBTACH|#sbatch|##SBATCH)\b")
_SHEBANG_MISSPELT = re.compile(r"(?:# +!|#/|!#|!/|/(?:usr/)?bin/|#!\s*$|#!(?=bin|usr))")
# What word processors and web pages make of plain characters.
_TYPED = {"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "\u00a0": " ", "\u2009": " ", "\u200b": ""}
_DASH = re.compile(r"(?<!\S)[–—‒−](-?)(?=[A-Za-z])")


# A quote that is still open after so many lines was not meant to be.
_MAX_ROWS = 300


@dataclass(frozen=True)
class LogicalLine:
    """What a shell reads at once. words: read anew each time, with the variables of that moment. line: where it begins."""

    words: Iterable[Word]
    line: int


class LineReader:
    """Yields the logical lines of `text`; the caller keeps `variables` up to date between them.

    is_script: the text is a file of its own, with a first line and perhaps job options; otherwise it was pasted.
    """

    def __init__(self, text: str, variables: Mapping[str, str], remarks: Remarks, *, is_script: bool) -> None:
        self._variables = variables
        self._remarks = remarks
        if text.startswith("\ufeff"):
            text = text.removeprefix("\ufeff")
            remarks.warn(
                "the file begins with an invisible byte order mark, so its first line is no #! line",
                "save it as UTF-8 without BOM: `sed -i '1s/^\\xEF\\xBB\\xBF//' FILE`",
                1,
            )
        self._lines = text.split("\n")
        self._strip_returns()
        self._position = 0
        self._has_commands = False
        self._is_script = is_script
        if is_script:
            self._check_first_line()

    def __iter__(self) -> Iterator[LogicalLine]:
        while self._position < len(self._lines):
            text = self._lines[self._position]
            if not text.strip():
                self._position += 1
            elif text.lstrip().startswith("#"):
                self._check_comment(text.strip(), self._position + 1)
                self._position += 1
            else:
                self._has_commands = True
                logical = self._read_logical()
                if logical:
                    yield logical

    # --- the file

    def _strip_returns(self) -> None:
        ending = [number for number, text in enumerate(self._lines, 1) if text.endswith("\r")]
        if ending:
            self._remarks.warn(
                f"{len(ending)} lines end as on Windows (CR LF): the shell takes the invisible CR for a part of the last word",
                "`sed -i 's/\\r$//' FILE`, or dos2unix",
                ending[0],
            )
        self._lines = [text.rstrip("\r") for text in self._lines]

    def _check_first_line(self) -> None:
        first = self._lines[0]
        is_batch = any(_BATCH.match(text) for text in self._lines)
        later = next((n for n, text in enumerate(self._lines[1:], 2) if text.startswith("#!")), None)
        if first.startswith("#!") and first[2:].strip().startswith("/"):
            self._check_interpreter(first[2:].split())
        elif first.lstrip().startswith("#!") and first != first.lstrip():
            self._remarks.warn("there are blanks before the #! of the first line", "remove them", 1)
        elif later and not any(text.strip() for text in self._lines[: later - 1]):
            self._remarks.warn(f"the #! line is line {later}: only the first line counts", "remove the lines above", 1)
        elif _SHEBANG_MISSPELT.match(first.strip()):
            self._remarks.warn(f"the first line is not a #! line: {first.strip()}", "write #!/bin/bash", 1)
        elif is_batch:
            self._remarks.warn(
                "the first line does not say which shell runs the script: Slurm refuses it", "begin with #!/bin/bash", 1
            )

    def _check_interpreter(self, words: list[str]) -> None:
        program = words[0]
        name = os.path.basename(program)
        if name == "env":
            names = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
            name = names[0] if names else "env"
            is_there = shutil.which(name) is not None
        else:
            is_there = os.path.exists(program)
        if name not in _SHELLS:
            self._remarks.warn(f"the first line names {name}, which is not a shell", "write #!/bin/bash", 1)
        elif not is_there:
            self._remarks.warn(f"the first line names {program}, which does not exist here", "write #!/bin/bash", 1)

    def _check_comment(self, text: str, line: int) -> None:
        if _BATCH.match(text) and self._has_commands and self._is_script:
            self._remarks.warn(
                f"{text}: it stands after a command, where it counts no longer",
                "move it up, before the first command",
                line,
            )
        elif _BATCH_MISSPELT.match(text) and not self._has_commands and self._is_script:
            self._remarks.warn(f"{text}: this is a comment and no job option", "write #SBATCH, without blanks", line)

    @property
    def has_job_options(self) -> bool:
        """The script has options for a batch system."""
        return any(_BATCH.match(text) for text in self._lines)

    # --- logical lines

    def _read_logical(self) -> LogicalLine | None:
        first = self._position + 1
        rows = self._read_rows()
        while True:
            if any(_ENGINE.search(text) for _, text in rows):
                rows = [(line, self._make_plain(text, line)) for line, text in rows]
            text, lines = _join(rows)
            try:
                self._skip_documents(tuple(WordReader(text, lines, self._variables)))
                return LogicalLine(WordReader(text, lines, self._variables), first)
            except UnclosedQuote as error:
                if self._position >= len(self._lines) or len(rows) > _MAX_ROWS:
                    self._give_up(error.args[0], first)
                    return None
                line, last = rows.pop()
                rows += [(line, last + "\n"), *self._read_rows()]

    def _give_up(self, opened: str, first: int) -> None:
        """Nothing closes what a line opened: leave that line out and go on behind it."""
        text = f"{opened} is opened here and never closed"
        if _ENGINE.search(self._lines[first - 1]):
            self._remarks.error(text, "close it", first)
        else:
            self._remarks.note(f"{text}: the line is left out", line=first)
        self._position = first

    def _read_rows(self) -> list[tuple[int, str]]:
        """Return physical lines that backslashes make one, as (number, text without the backslash)."""
        rows: list[tuple[int, str]] = []
        while self._position < len(self._lines):
            line, text = self._position + 1, self._lines[self._position]
            self._position += 1
            if rows and text.lstrip().startswith("#"):
                self._remarks.error(
                    "a comment ends the command above, whose rest is lost", "move the comment out of it", line
                )
                continue
            kept = self._strip_continuation(text, line)
            rows.append((line, kept if kept is not None else text))
            if kept is None and not self._is_missing_backslash(rows):
                break
        return rows

    def _strip_continuation(self, text: str, line: int) -> str | None:
        """Return the line without its final backslash, None where it has none."""
        if _ends_in_backslash(text):
            return text[:-1] + " " if text[:-1].endswith((" ", "\t")) else text[:-1]
        bare = text.rstrip()
        if _ends_in_backslash(bare):
            self._remarks.error(
                "there is a blank behind the backslash, so the command ends here", "remove the blank", line
            )
            return bare[:-1] + " "
        commented = re.match(r"(.*?[ \t])\\[ \t]+#", text)
        if commented:
            self._remarks.error(
                "there is a comment behind the backslash, so the command ends here", "move the comment out of it", line
            )
            return commented[1]
        return None

    def _is_missing_backslash(self, rows: list[tuple[int, str]]) -> bool:
        """Say whether the next line can only be meant as a part of this engine command: it begins with a flag."""
        if self._position >= len(self._lines) or not any(_ENGINE.search(text) for _, text in rows):
            return False
        if not re.match(r"\s*--?[A-Za-z]", self._lines[self._position]):
            return False
        line, text = rows.pop()
        self._remarks.error(
            "there is no backslash at the end of this line, and the next one begins with a flag", "add \\", line
        )
        rows.append((line, text + " "))
        return True

    def _make_plain(self, text: str, line: int) -> str:
        plain = _DASH.sub(lambda match: "--" if match[1] or _is_long(text, match.end()) else "-", text)
        plain = "".join(_TYPED.get(char, char) for char in plain)
        if plain != text:
            odd = sorted({char for char in text if char in _TYPED or char in "–—‒−"} - set(plain))
            names = ", ".join(f"{char} (U+{ord(char):04X})" for char in odd)
            self._remarks.error(
                f"typographic characters that no shell knows: {names}", "type plain quotes, dashes and blanks", line
            )
        return plain

    def _skip_documents(self, words: tuple[Word, ...]) -> None:
        for word, following in itertools.pairwise(words):
            if word.is_operator and word.text in ("<<", "<<-"):
                self._skip_document(following.text, word.line, is_indented=word.text == "<<-")

    def _skip_document(self, end: str, line: int, *, is_indented: bool) -> None:
        for position in range(self._position, len(self._lines)):
            text = self._lines[position]
            if (text.lstrip("\t") if is_indented else text) == end:
                self._position = position + 1
                return
        self._remarks.note(f"the text that begins here has no line {end} at its end", line=line)


def _ends_in_backslash(text: str) -> bool:
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1


def _is_long(text: str, start: int) -> bool:
    return bool(re.match(r"[A-Za-z][A-Za-z-]", text[start:]))


def _join(rows: list[tuple[int, str]]) -> tuple[str, list[int]]:
    text = "".join(part for _, part in rows)
    lines = [line for line, part in rows for _ in part]
    return text, [*lines, lines[-1] if lines else 1]
