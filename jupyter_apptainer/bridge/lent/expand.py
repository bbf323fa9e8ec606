"""`$name` and `{expression}` of a line, as IPython replaces them, but one by one: what is not Python's stays as it is.

IPython gives up on the whole line where a single one is unknown, and `{image} … $HOME` is what people write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from string import Formatter
from typing import Any

_DOLLAR = re.compile(r"\$(\$?)([A-Za-z_]\w*)((?:\.[A-Za-z_]\w*)*)")


def expand(line: str, namespace: Mapping[str, Any]) -> str:
    """Replace what `namespace` has. `{{` is a brace, `$$name` is `$name`; within single quotes `$` stays, and `{}` does not."""
    try:
        parts = list(Formatter().parse(line))
    except ValueError:
        # A brace that stands alone is no mistake: `awk '{print'`.
        parts = [(line, None, None, None)]
    quotes = _Quotes()
    return "".join(_iter_expanded(parts, dict(namespace), quotes))


def _iter_expanded(parts: Any, namespace: dict[str, Any], quotes: _Quotes) -> Iterator[str]:
    for literal, field, spec, conversion in parts:
        yield _expand_dollars(literal, namespace, quotes)
        if field is not None:
            expression = field + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            yield _evaluate(expression, namespace)


def _evaluate(expression: str, namespace: dict[str, Any]) -> str:
    try:
        return str(eval(expression, namespace))
    except Exception:  # noqa: BLE001 - the expression is anybody's, as in IPython: what cannot be evaluated stays as it is
        return "{" + expression + "}"


def _expand_dollars(text: str, namespace: Mapping[str, Any], quotes: _Quotes) -> str:
    done, result = 0, ""
    for match in _DOLLAR.finditer(text):
        quotes.read(text[done : match.start()])
        result += text[done : match.start()]
        result += match[0] if quotes.is_single else _replace_one(match, namespace)
        done = match.end()
    quotes.read(text[done:])
    return result + text[done:]


def _replace_one(match: re.Match[str], namespace: Mapping[str, Any]) -> str:
    if match[1]:
        return match[0][1:]
    if match[2] not in namespace:
        return match[0]
    value = namespace[match[2]]
    attributes = match[3].split(".")[1:]
    for index, attribute in enumerate(attributes):
        if not hasattr(value, attribute):
            # `$name.sif`: the rest is text.
            return str(value) + "".join(f".{rest}" for rest in attributes[index:])
        value = getattr(value, attribute)
    return str(value)


class _Quotes:
    """Whether what comes next stands within single quotes."""

    def __init__(self) -> None:
        self._open = ""

    @property
    def is_single(self) -> bool:
        return self._open == "'"

    def read(self, text: str) -> None:
        for character in text:
            if character in "'\"" and self._open in ("", character):
                self._open = "" if self._open else character
