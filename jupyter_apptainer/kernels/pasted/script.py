"""Follow a script to its engine commands: variables, exports and folders as they are when the command runs.

Nothing is executed. Branches and loops are read as if each of their commands ran once, in the order of the text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ..remarks import Remarks
from .lines import LineReader, LogicalLine
from .words import SEPARATORS, Word

ENGINES = ("apptainer", "singularity")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\+?)=(.*)", re.DOTALL)
_ENGINE_WORD = re.compile(r"(?:.*[/ ])?(apptainer|singularity)[)`]?$")
# What stands before a command without being one, and what begins a line that starts nothing.
_BEFORE = frozenset(
    {"if", "then", "else", "elif", "do", "while", "until", "!", "{", "time", "exec", "nohup", "command"}
)
_STARTS_NOTHING = frozenset(
    {"echo", "printf", "module", "ml", "which", "type", "alias", "for", "case", "function", "trap", "hash"}
)
_EXPORTING = frozenset({"export", "declare", "typeset", "local", "readonly"})


@dataclass(frozen=True)
class EngineCommand:
    """An engine command of a script, with what its surroundings gave it.

    program: "apptainer" or "singularity", as written. wrappers: the words before it. words: those behind it.
    exported: variables that the script exported, or set for this command, before it. cwd: the folder in which it would run.
    """

    program: str
    line: int
    wrappers: tuple[Word, ...]
    words: tuple[Word, ...]
    exported: Mapping[str, Word]
    cwd: str


@dataclass
class Script:
    """The engine commands of a script, and what else was seen in it. unset: why a variable is not known, by name."""

    commands: list[EngineCommand] = field(default_factory=list)
    unset: dict[str, str] = field(default_factory=dict)
    has_job_options: bool = False


def read_script(text: str, environ: Mapping[str, str], cwd: str, remarks: Remarks, *, is_script: bool) -> Script:
    """Return what is in `text`. environ: the variables of this host; cwd: where relative paths begin."""
    return _Follower(text, environ, cwd, remarks, is_script=is_script).follow()


class _Follower:
    def __init__(self, text: str, environ: Mapping[str, str], cwd: str, remarks: Remarks, *, is_script: bool) -> None:
        self._variables = {**environ, "PWD": cwd}
        self._exported: dict[str, Word] = {}
        self._cwd = cwd
        self._remarks = remarks
        self._script = Script()
        self._reader = LineReader(text, self._variables, remarks, is_script=is_script)

    def follow(self) -> Script:
        for logical in self._reader:
            for words in _split_commands(logical):
                self._follow_command(words)
        self._script.has_job_options = self._reader.has_job_options
        return self._script

    def _follow_command(self, words: list[Word]) -> None:
        if not words:
            return
        while words and words[0].text in _BEFORE and not words[0].is_quoted:
            words = words[1:]
        prefix: dict[str, Word] = {}
        while words and (match := _ASSIGNMENT.fullmatch(words[0].text)):
            prefix[match[1]] = self._read_value(words[0], match)
            words = words[1:]
        if not words:
            for name, value in prefix.items():
                self._set(name, value)
            return
        name = words[0].text
        if name in _EXPORTING:
            self._export(
                words[1:], is_exported=name == "export" or any(w.text.startswith("-") and "x" in w.text for w in words)
            )
        elif name == "unset":
            for word in words[1:]:
                self._variables.pop(word.text, None)
                self._exported.pop(word.text, None)
        elif name == "cd":
            self._change_folder(words)
        elif name in ("source", "."):
            self._remarks.note(f"what {' '.join(w.text for w in words)} sets is not known here", line=words[0].line)
        elif name not in _STARTS_NOTHING:
            self._find_engine(words, prefix)

    def _read_value(self, word: Word, match: re.Match[str]) -> Word:
        value = _value_of(word, match)
        # NAME+=VALUE
        return replace(value, text=self._variables.get(match[1], "") + value.text) if match[2] else value

    def _set(self, name: str, value: Word) -> None:
        if value.unknown:
            self._variables.pop(name, None)
            self._script.unset[name] = f"line {value.line} sets it from {value.unknown[0]}, which is not known here"
        else:
            self._variables[name] = value.text
        if name in self._exported:
            self._exported[name] = value

    def _export(self, words: Iterable[Word], *, is_exported: bool) -> None:
        for word in words:
            match = _ASSIGNMENT.fullmatch(word.text)
            if match:
                self._set(match[1], self._read_value(word, match))
            name = match[1] if match else word.text
            if not is_exported or name.startswith("-"):
                continue
            if name in self._variables:
                self._exported[name] = Word(self._variables[name], word.line)
            elif match:
                self._exported[name] = _value_of(word, match)

    def _change_folder(self, words: list[Word]) -> None:
        target = words[1] if len(words) > 1 else Word(self._variables.get("HOME", "~"))
        if target.unknown or target.text == "-":
            self._remarks.note(
                f"the script goes to {target.text}, which is not known here: relative paths are taken from {self._cwd}",
                line=words[0].line,
            )
            return
        self._cwd = os.path.normpath(os.path.join(self._cwd, target.text))
        self._variables["PWD"] = self._cwd

    def _find_engine(self, words: list[Word], prefix: Mapping[str, Word]) -> None:
        for position, word in enumerate(words):
            match = _ENGINE_WORD.match(word.text)
            if match and len(words) > position + 1 and not (position and words[position - 1].text.startswith("-v")):
                own = {w.text.partition("=")[0]: w for w in words[:position] if _ASSIGNMENT.fullmatch(w.text)}
                set_here = {name: _value_of(w, _ASSIGNMENT.fullmatch(w.text)) for name, w in own.items()}
                self._script.commands.append(
                    EngineCommand(
                        program=match[1],
                        line=word.line,
                        wrappers=tuple(words[:position]),
                        words=tuple(words[position + 1 :]),
                        exported={**self._exported, **prefix, **set_here},
                        cwd=self._cwd,
                    )
                )
                return


def _value_of(word: Word, match: re.Match[str] | None) -> Word:
    return Word(match[3] if match else word.text, word.line, word.unknown, word.is_quoted)


def _split_commands(logical: LogicalLine) -> Iterator[list[Word]]:
    """Split at operators, and leave out redirections with their targets."""
    command: list[Word] = []
    is_target = False
    for word in logical.words:
        if is_target:
            is_target = False
        elif word.is_operator and word.text in SEPARATORS:
            yield command
            command = []
        elif word.is_operator:
            is_target = True
        else:
            command.append(word)
    yield command
