"""Shell words as far as they can be known without running anything: quotes, variables, operators.

`shlex` would take the quotes away before the variables are looked at, and `'$HOME'` is not `"$HOME"`. Nothing is ever executed:
what only a shell could know stays as it is and is named in the word's `unknown`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

OPERATORS = (
    "&&",
    "||",
    ";;",
    "|&",
    "&>>",
    "&>",
    ">>",
    "<<<",
    "<<-",
    "<<",
    "<&",
    ">&",
    ">|",
    ";",
    "&",
    "|",
    "<",
    ">",
    "(",
    ")",
)
# What ends a simple command; the others are redirections, whose target is the next word.
SEPARATORS = frozenset({"&&", "||", ";;", ";", "&", "|", "|&", "(", ")"})
_PLAIN = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_BRACED = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::?[-=]([^{}$`]*))?\}")
_SPECIAL = re.compile(r"\$(?:[0-9@*#?!$-]|\{(?:[0-9@*#?!$-]|[^}]*)\})")
_OPERATOR_CHARS = frozenset("&|;<>()")
# Brackets, and what may hold some that do not count.
_BRACKETS = re.compile(r"[()]|\\.|'[^']*'|\"(?:\\.|[^\"\\])*\"", re.DOTALL)
_BLANK = " \t"
_IN_DOUBLE_QUOTES = '$`"\\\n'


class UnclosedQuote(ValueError):
    """A quote, or a bracket of a substitution, has no partner: the word goes on in the next line."""


@dataclass(frozen=True)
class Word:
    """A word of a command. line: where it begins. unknown: what could not be filled in, as written.

    is_quoted: some of it stood in quotes or behind a backslash, so it is no operator and no keyword.
    """

    text: str
    line: int = 1
    unknown: tuple[str, ...] = ()
    is_quoted: bool = False
    is_operator: bool = False


class WordReader:
    """Splits a logical line of a script into words, with `variables` filled in.

    lines: the number of the physical line at each position of `text`.
    """

    def __init__(self, text: str, lines: list[int], variables: Mapping[str, str]) -> None:
        self._text = text
        self._lines = lines
        self._variables = variables
        self._position = 0
        self._reset()

    def __iter__(self) -> Iterator[Word]:
        """Yield words and operators; variables count as they are when a word is asked for. Raises UnclosedQuote."""
        while (word := self._read_word()) is not None:
            yield word

    def _reset(self) -> None:
        self._parts: list[str] = []
        self._unknown: list[str] = []
        self._is_quoted = False

    def _read_word(self) -> Word | None:
        self._reset()
        self._skip(_BLANK + "\n")
        if self._position >= len(self._text) or self._text[self._position] == "#":
            return None
        # The number of a file descriptor, as in 2>&1.
        if descriptor := re.compile(r"\d+(?=[<>])").match(self._text, self._position):
            self._position = descriptor.end()
        start = self._position
        operator = self._find_operator()
        if operator:
            self._position += len(operator)
            return Word(operator, self._lines[start], is_operator=True)
        if self._text[start] == "~":
            self._read_home()
        while self._position < len(self._text) and not self._ends_word():
            self._read_piece()
        return Word("".join(self._parts), self._lines[start], tuple(self._unknown), self._is_quoted)

    def _ends_word(self) -> bool:
        char = self._text[self._position]
        return char in _BLANK + "\n" or self._find_operator() != ""

    def _find_operator(self) -> str:
        if self._text[self._position] not in _OPERATOR_CHARS:
            return ""
        return next(op for op in OPERATORS if self._text.startswith(op, self._position))

    def _skip(self, chars: str) -> None:
        while self._position < len(self._text) and self._text[self._position] in chars:
            self._position += 1

    def _read_home(self) -> None:
        match = re.compile(r"~[A-Za-z0-9._-]*(?=/|:|$|\s)").match(self._text, self._position)
        if match:
            self._parts.append(os.path.expanduser(match[0]) if match[0] != "~" else self._variables.get("HOME", "~"))
            self._position = match.end()

    def _read_piece(self) -> None:
        char = self._text[self._position]
        if char == "\\":
            self._is_quoted = True
            self._parts.append(self._text[self._position + 1 : self._position + 2])
            self._position += 2
        elif char == "'":
            self._is_quoted = True
            end = self._text.find("'", self._position + 1)
            if end < 0:
                raise UnclosedQuote("'")
            self._parts.append(self._text[self._position + 1 : end])
            self._position = end + 1
        elif char == '"':
            self._is_quoted = True
            self._position += 1
            self._read_double_quoted()
        elif char in "$`":
            self._read_substitution()
        else:
            self._parts.append(char)
            self._position += 1

    def _read_double_quoted(self) -> None:
        while self._position < len(self._text):
            char = self._text[self._position]
            if char == '"':
                self._position += 1
                return
            if char == "\\" and self._text[self._position + 1 : self._position + 2] in _IN_DOUBLE_QUOTES:
                self._parts.append(self._text[self._position + 1 : self._position + 2])
                self._position += 2
            elif char in "$`":
                self._read_substitution()
            else:
                self._parts.append(char)
                self._position += 1
        raise UnclosedQuote('"')

    def _read_substitution(self) -> None:
        start = self._position
        rest = self._text[start:]
        if rest.startswith("$(") or rest[0] == "`":
            self._read_command()
            return
        if plain := _PLAIN.match(rest):
            self._position += plain.end()
            self._fill(plain[1], None, f"${{{plain[1]}}}")
        elif braced := _BRACED.match(rest):
            self._position += braced.end()
            self._fill(braced[1], braced[2], f"${{{braced[1]}}}" if braced[2] is None else braced[0])
        elif special := _SPECIAL.match(rest):
            self._position += special.end()
            self._leave(special[0])
        else:
            self._parts.append("$")
            self._position += 1

    def _fill(self, name: str, default: str | None, written: str) -> None:
        value = self._variables.get(name, default)
        if value is None:
            self._leave(written)
        else:
            self._parts.append(value)

    def _leave(self, written: str) -> None:
        self._parts.append(written)
        self._unknown.append(written)

    def _read_command(self) -> None:
        start = self._position
        end = self._text.find("`", start + 1) if self._text[start] == "`" else _find_bracket(self._text, start + 1)
        if end < 0:
            raise UnclosedQuote("$(")
        written = self._text[start : end + 1]
        self._position = end + 1
        value = self._answer(written.strip("$()`").strip())
        if value is None:
            self._leave(written)
        else:
            self._parts.append(value)

    def _answer(self, command: str) -> str | None:
        """Return what a command would print whose answer is known."""
        match command.split():
            case ["pwd"]:
                return self._variables.get("PWD")
            case ["whoami"] | ["id", "-un"]:
                return self._variables.get("USER")
            case _:
                return None


def _find_bracket(text: str, start: int) -> int:
    """Return the position of the bracket that closes the one at `start`, -1 where there is none."""
    depth = 0
    for match in _BRACKETS.finditer(text, start):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return -1
