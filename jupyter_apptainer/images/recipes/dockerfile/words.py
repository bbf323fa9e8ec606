"""Words of a Dockerfile: quotes, escapes and `$NAME` as BuildKit reads them, known values put in, unknown ones left to a shell.

A value that only the base image knows cannot be known here: it stays `${NAME}` and is looked up when the script runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

# A value of None: set, but only the shell knows to what.
Values = Mapping[str, str | None]
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9*#@?$!-]")
_MODIFIER = re.compile(r"(:?[-+?]|##?|%%?|//?)(.*)", re.DOTALL)
_SHELL_SPECIAL = re.compile(r'([\\"$`])')


@dataclass(frozen=True)
class Reference:
    """A variable that is looked up later. text: what stands between the braces, for a shell."""

    text: str


Part = str | Reference


@dataclass(frozen=True)
class Word:
    """A word after expansion."""

    parts: tuple[Part, ...]

    @property
    def known(self) -> str | None:
        """The text, where all of it is known."""
        if any(isinstance(part, Reference) for part in self.parts):
            return None
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def shown(self) -> str:
        """The text for people, with `${NAME}` where it is not known."""
        return "".join(part if isinstance(part, str) else f"${{{part.text}}}" for part in self.parts)

    @property
    def shell(self) -> str:
        """The word for a shell, in double quotes."""
        inner = "".join(
            _SHELL_SPECIAL.sub(r"\\\1", part) if isinstance(part, str) else f"${{{part.text}}}" for part in self.parts
        )
        return f'"{inner}"'


def expand(text: str, values: Values, escape: str = "\\", *, is_text: bool = False) -> Word:
    """Read one word; in a text, as in a here-document, quotes and most escapes are nothing special."""
    return Word(tuple(_merge(_Reader(text, values, escape, is_text).read())))


class _Reader:
    def __init__(self, text: str, values: Values, escape: str, is_text: bool) -> None:
        self._text = text
        self._values = values
        self._escape = escape
        self._is_text = is_text
        self._at = 0

    def read(self) -> list[Part]:
        found: list[Part] = []
        quote = ""
        while self._at < len(self._text):
            char = self._text[self._at]
            if quote == "'":
                self._at += 1
                if char == quote:
                    quote = ""
                else:
                    found.append(char)
            elif not self._is_text and ((char in "'\"" and not quote) or char == quote):
                quote = "" if quote else char
                self._at += 1
            elif char == self._escape:
                found.append(self._read_escaped(is_quoted=bool(quote) or self._is_text))
            elif char == "$":
                found += self._read_variable()
            else:
                found.append(char)
                self._at += 1
        return found

    def _read_escaped(self, *, is_quoted: bool) -> str:
        following = self._text[self._at + 1 : self._at + 2]
        self._at += 2
        if is_quoted and following not in (("$",) if self._is_text else ('"', "$", self._escape)):
            return self._escape + following
        return following

    def _read_variable(self) -> list[Part]:
        self._at += 1
        if self._text[self._at : self._at + 1] != "{":
            match = _NAME.match(self._text, self._at)
            if not match:
                return ["$"]
            self._at = match.end()
            return self._look_up(match[0], "")
        end = self._find_end(self._at + 1)
        inner = self._text[self._at + 1 : end]
        self._at = end + 1
        match = _NAME.match(inner)
        return self._look_up(match[0], inner[match.end() :]) if match else [f"${{{inner}}}"]

    def _find_end(self, start: int) -> int:
        depth = 1
        for index in range(start, len(self._text)):
            depth += {"{": 1, "}": -1}.get(self._text[index], 0)
            if depth == 0:
                return index
        return len(self._text)

    def _look_up(self, name: str, modifier: str) -> list[Part]:
        match = _MODIFIER.match(modifier)
        is_set = name in self._values
        value = self._values.get(name)
        if not is_set or value is None:
            return [Reference(name + modifier)]
        if not match:
            return [value]
        operator, rest = match[1], match[2]
        is_there = bool(value) if operator.startswith(":") else True
        if operator.endswith("-"):
            return [value] if is_there else list(expand(rest, self._values, self._escape).parts)
        if operator.endswith("+"):
            return list(expand(rest, self._values, self._escape).parts) if is_there else []
        if operator.endswith("?"):
            return [value]
        return [_trim(value, operator, rest)]


def _trim(value: str, operator: str, rest: str) -> str:
    """Do what `${name#pattern}`, `##`, `%`, `%%`, `/a/b` and `//a/b` do."""
    if operator.startswith("/"):
        pattern, _, replacement = rest.partition("/")
        return re.sub(_translate(pattern), lambda _: replacement, value, count=0 if operator == "//" else 1)
    regex = re.compile(_translate(rest))
    lengths = range(len(value) + 1) if len(operator) == 1 else range(len(value), -1, -1)
    for length in lengths:
        if operator.startswith("#") and regex.fullmatch(value[:length]):
            return value[length:]
        if operator.startswith("%") and regex.fullmatch(value[len(value) - length :]):
            return value[: len(value) - length]
    return value


def _translate(pattern: str) -> str:
    return "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)


def _merge(parts: list[Part]) -> list[Part]:
    merged: list[Part] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        elif part != "":
            merged.append(part)
    return merged
