"""One request as a line of JSON, read from somebody who may be hostile: in time, of limited size, and checked field by field."""

from __future__ import annotations

import json
import posixpath
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ..errors import BridgeError

VERSION = 1
MAX_LINE_BYTES = 16 << 20
# A client sends its line at once; whoever does not, holds one of few places.
LINE_TIMEOUT_S = 10.0
_MAX_WORDS = 1000
_MAX_WORD_CHARACTERS = 32 << 10
Ask = Literal["run", "status", "complete", "path", "panel"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """ask: what is wanted. words: of the command line, already split. stdin: the cell's body. cwd: the caller's, as the container has it.
    wanted, given: variables of a Python body by name, and the values of those that there are; of the panel, what was filled in."""

    ask: Ask
    words: tuple[str, ...] = ()
    stdin: str | None = None
    cwd: str = "/"
    wanted: tuple[str, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)


def read_line(connection: socket.socket) -> tuple[bytes, bool]:
    """Read up to the first line break; returns also whether more came with it, which stops what is asked for. Raises BridgeError for a line that is too long or too slow, OSError for a lost client."""
    deadline = time.monotonic() + LINE_TIMEOUT_S
    parts: list[bytes] = []
    size = 0
    while True:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            data = connection.recv(65536)
        except TimeoutError as error:
            raise BridgeError(f"no whole request came within {LINE_TIMEOUT_S:g} s") from error
        if not data:
            raise BridgeError("the connection ended within a request")
        head, newline, more = data.partition(b"\n")
        parts.append(head)
        size += len(head)
        if size > MAX_LINE_BYTES:
            raise BridgeError(f"a request may have {MAX_LINE_BYTES >> 20} MiB at most")
        if newline:
            return b"".join(parts), bool(more)


def parse_request(line: bytes) -> Request:
    """Raises BridgeError for anything that is not a request of our version."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BridgeError("the request is not a line of JSON") from error
    if not isinstance(record, dict):
        raise BridgeError("the request is not a JSON object")
    if record.get("version") != VERSION:
        raise BridgeError(
            f"the request is of another version than {VERSION}, which the host speaks",
            hint="restart the kernel: its side of the bridge was made by another version",
        )
    return Request(
        ask=_read_ask(record.get("ask")),
        words=_read_words(record.get("words", [])),
        stdin=_read_text(record, "stdin", None),
        cwd=_read_cwd(record.get("cwd", "/")),
        wanted=_read_words(record.get("wanted", [])),
        given=_read_given(record.get("given", {})),
    )


def _read_ask(value: object) -> Ask:
    if value not in get_args(Ask):
        raise BridgeError(f"`ask` is none of {', '.join(get_args(Ask))}")
    return value  # type: ignore[return-value]  # just compared


def _read_words(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MAX_WORDS or not all(map(_is_word, value)):
        raise BridgeError(f"`words` is not a list of at most {_MAX_WORDS} strings without null characters")
    return tuple(value)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_WORD_CHARACTERS and "\0" not in value and _is_encodable(value)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair.
        return False
    return True


def _read_cwd(value: object) -> str:
    if not _is_word(value) or not str(value).startswith("/"):
        raise BridgeError("`cwd` is not an absolute path")
    return posixpath.normpath(str(value))


def _read_text(record: dict[str, Any], name: str, default: str | None) -> str | None:
    value = record.get(name, default)
    if value is not None and not (isinstance(value, str) and _is_encodable(value)):
        raise BridgeError(f"`{name}` is not a text")
    return value


def _read_given(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BridgeError("`given` is not an object")
    return value
