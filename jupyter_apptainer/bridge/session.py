"""One connection: a request, what it prints as it comes, and how it ended. Whatever else the client sends, or its end, stops the command.

What is sent waits for the client to read it, and the command waits with it; a client that reads nothing for a while is given up.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import select
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..engine.command import Completed
from ..engine.completion import complete_words
from ..engine.diagnose import diagnose
from ..engine.output import KEPT_OUTPUT, OnText, Stream
from ..engine.runner import Runner
from ..errors import ApptainerError, BridgeError, CommandError
from .hints import explain_missing
from .model import BridgeSetup
from .order import Order, build_order
from .request import Request, parse_request, read_line
from .status import build_status, render_status

Log = Callable[[str], None]
# The main thread of a kernel reads what it asked for; only one that is stopped does not.
READER_TIMEOUT_S = 60.0
_FRAME_CHARACTERS = 32 << 10
_STOPPED: dict[str, object] = {"code": 130, "error": None, "value": None}
_ERROR = re.compile(r"^error: ", re.MULTILINE)


class Session:
    """Serves one client on a thread of its own. environ: variables for what runs. log: takes one line for people."""

    def __init__(self, connection: socket.socket, setup: BridgeSetup, environ: Mapping[str, str], log: Log) -> None:
        self._connection = connection
        self._setup = setup
        self._environ = environ
        self._log = log

    def serve(self) -> None:
        """Answer and close. The client's being gone is no error of ours."""
        with self._connection:
            try:
                end = self._answer()
                self._connection.settimeout(READER_TIMEOUT_S)
                self._send({"end": end})
            except OSError as error:
                self._log(f"a client was given up: {error}")

    def _answer(self) -> dict[str, object]:
        try:
            line, is_stopped = read_line(self._connection)
            request = parse_request(line)
            if is_stopped:
                return _STOPPED
            self._connection.settimeout(READER_TIMEOUT_S)
            return self._serve_request(request)
        except ApptainerError as error:
            self._log(f"refused: {error.message}")
            return {"code": 1, "error": error.to_json(), "value": None}

    def _serve_request(self, request: Request) -> dict[str, object]:
        match request.ask:
            case "run":
                return self._run(request)
            case "status":
                status = build_status(self._setup)
                return _succeed({**status, "text": render_status(status)})
            case "complete":
                return _succeed(
                    [list(pair) for pair in complete_words(self._setup.engine, request.words, self._environ)]
                )
            case "path":
                path = request.words[0] if request.words else ""
                return _succeed(explain_missing(path, request.cwd, self._setup))

    def _run(self, request: Request) -> dict[str, object]:
        order = build_order(request, self._setup, self._environ, token=secrets.token_hex(4))
        self._log(f"runs: {order.render()}")
        with _written(order.body, request.stdin):
            completed = Runner().complete(
                order.command,
                on_text=self._choose_sink(order),
                use_pty=request.wants_progress and order.draws,
                stop_when_readable=self._connection.fileno(),
            )
        if self._is_asked_to_stop():
            return _STOPPED
        if completed.returncode:
            return {"code": completed.returncode, "error": _diagnose(order, completed).to_json(), "value": None}
        return _succeed(None if order.value_key is None else _read_value(order, completed))

    def _choose_sink(self, order: Order) -> OnText | None:
        if order.value_key is not None:
            return None
        return self._send_text if order.program == "engine" else OwnOutput(self._send_text)

    def _is_asked_to_stop(self) -> bool:
        return bool(select.select([self._connection], [], [], 0)[0])

    def _send_text(self, stream: Stream, text: str) -> None:
        for start in range(0, len(text), _FRAME_CHARACTERS):
            self._send({stream: text[start : start + _FRAME_CHARACTERS]})

    def _send(self, record: Mapping[str, object]) -> None:
        self._connection.sendall(json.dumps(record).encode() + b"\n")


class OwnOutput:
    """Passes on what a command of ours prints, but for the error at its end: that comes as an error."""

    def __init__(self, send: OnText) -> None:
        self._send = send
        self._is_held = False

    def __call__(self, stream: Stream, text: str) -> None:
        """Called with each piece; ours write whole lines."""
        if stream == "stderr":
            begin = _ERROR.search(text)
            shown = "" if self._is_held else text[: begin.start()] if begin else text
            self._is_held = self._is_held or begin is not None
            text = shown
        if text:
            self._send(stream, text)


@contextmanager
def _written(path: Path | None, text: str | None) -> Iterator[None]:
    """Have the text in a new file for a while. Raises BridgeError where that cannot be."""
    if path is None:
        yield
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise BridgeError(
            f"the cell cannot be written to {path}: {error.strerror}", hint="`%cd` to a folder that you can write to"
        ) from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text or "")
        yield
    finally:
        path.unlink(missing_ok=True)


def _succeed(value: object) -> dict[str, object]:
    return {"code": 0, "error": None, "value": value}


def _diagnose(order: Order, completed: Completed) -> ApptainerError:
    command = order.command
    if order.program == "own":
        # It has explained itself already.
        begin = _ERROR.search(completed.stderr)
        said = completed.stderr[begin.end() :].strip() if begin else ""
        message, _, hint = said.partition("\nHint: ")
        message = message or f"could not {command.title}: exit status {completed.returncode}"
        return CommandError(message, hint=hint or None, command=order.render(), returncode=completed.returncode)
    return diagnose(completed, title=command.title, subject=command.subject, shown=command.render())


def _read_value(order: Order, completed: Completed) -> object:
    """Return what the command printed as JSON. Raises BridgeError where it is too long to be kept, and so is cut."""
    try:
        value = json.loads(completed.stdout)
    except ValueError as error:
        raise BridgeError(
            f"could not {order.command.title}: its output is no JSON, or has more than {KEPT_OUTPUT // 1_000_000} million characters",
            hint="narrow it, or ask for the text",
        ) from error
    if order.value_key and isinstance(value, dict):
        return value.get(order.value_key)
    return value
