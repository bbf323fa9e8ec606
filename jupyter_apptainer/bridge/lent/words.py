"""From the line of a cell to words, as a shell would split it, and without a shell: quotes, `~`, variables of the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from .call import SpecError

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")
_TILDE = re.compile(r"~[\w.-]*(?=/|:|\s|$)")
# What a shell would act on, where it stands alone or at the end of a word and without quotes.
_SHELL_WORD = re.compile(r"\||\|\||&&|&|;|[12&]?>>?(?:&[12]|.+)?|<{1,3}.*")


def split_words(line: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Split `line`. Single quotes keep everything; outside of them `$NAME` and `${NAME}` are the environment's, and `~` a home.

    Raises SpecError for a quote without its other half, an unknown variable, and for words that only a shell understands.
    """
    words: list[str] = []
    rest = line.strip()
    while rest:
        word, rest, is_bare = _read_word(rest, environ)
        if is_bare and _SHELL_WORD.fullmatch(word):
            raise SpecError(
                f"{word!r} is a shell's word, and no shell reads this line",
                hint="use !apptainer for a shell, --out NAME for the output, or put the word into quotes to pass it on",
            )
        words.append(word)
        rest = rest.lstrip()
    return tuple(words)


def _read_word(text: str, environ: Mapping[str, str]) -> tuple[str, str, bool]:
    """Return the first word, what follows it, and whether it had no quotes at all."""
    word, is_bare = "", True
    while text and not text[0].isspace():
        if text[0] == "'":
            end = _find_quote(text, "'")
            word, text, is_bare = word + text[1:end], text[end + 1 :], False
        elif text[0] == '"':
            inside, text = _read_double(text, environ)
            word, is_bare = word + inside, False
        elif text[0] == "\\" and len(text) > 1:
            word, text, is_bare = word + text[1], text[2:], False
        elif text[0] == "$":
            value, text = _read_variable(text, environ)
            word += value
        elif text[0] == "~" and (not word or word[-1] in "=:"):
            found = _TILDE.match(text)
            name = found[0] if found else "~"
            word, text = word + (_find_home(name, environ) if found else name), text[len(name) :]
        else:
            word, text = word + text[0], text[1:]
    return word, text, is_bare


def _read_double(text: str, environ: Mapping[str, str]) -> tuple[str, str]:
    end = _find_quote(text, '"')
    inside, rest = text[1:end], text[end + 1 :]
    word = ""
    while inside:
        if inside[0] == "\\" and inside[1:2] and inside[1] in '"\\$':
            word, inside = word + inside[1], inside[2:]
        elif inside[0] == "$":
            value, inside = _read_variable(inside, environ)
            word += value
        else:
            word, inside = word + inside[0], inside[1:]
    return word, rest


def _find_quote(text: str, quote: str) -> int:
    """Return where the quote ends that begins the text."""
    index = 1
    while index < len(text):
        if quote == '"' and text[index] == "\\":
            index += 1
        elif text[index] == quote:
            return index
        index += 1
    raise SpecError(
        f"a quote {quote} has no end: {text if len(text) < 40 else text[:40] + '…'}",
        hint="close it, or write a backslash before it",
    )


def _read_variable(text: str, environ: Mapping[str, str]) -> tuple[str, str]:
    match = _VARIABLE.match(text)
    if not match:
        return "$", text[1:]
    name = match[1] or match[2]
    if name not in environ:
        raise SpecError(
            f"there is no variable {name}, neither in this notebook nor in the environment",
            hint=f"set it, or pass it on unchanged in single quotes: '{match[0]}'",
        )
    return environ[name], text[match.end() :]


def _find_home(name: str, environ: Mapping[str, str]) -> str:
    return environ["HOME"] if name == "~" and "HOME" in environ else os.path.expanduser(name)
