"""One connection: a request, what it prints as it comes, and how it ended. Whatever else the client sends, or its end, stops the command.

What is sent waits for the client to read it, and the command waits with it; a client that reads nothing for a while is given up.
"""

from __future__ import annotations

import json
import shlex
import socket
from collections.abc import Callable, Mapping

from ..engine.command import redact_argv
from ..errors import ApptainerError
from .executor import Executors
from .hints import explain_missing
from .model import BridgeSetup
from .order import Order, build_order, find_cwd
from .panel import admit, build_record, restrict
from .request import Request, parse_request, read_line
from .status import build_status, render_status

Log = Callable[[str], None]
# The main thread of a kernel reads what it asked for; only one that is stopped does not.
READER_TIMEOUT_S = 60.0
_FRAME_CHARACTERS = 32 << 10
_STOPPED: dict[str, object] = {"code": 130, "error": None, "value": None}


class Session:
    """Serves one client on a thread of its own. executors: carry out lines; panels: know what the panel shows. log: takes one line for people."""

    def __init__(
        self, connection: socket.socket, setup: BridgeSetup, executors: Executors, panels: Executors, log: Log
    ) -> None:
        self._connection = connection
        self._setup = setup
        self._executors = executors
        self._panels = panels
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
                return self._complete(request)
            case "panel":
                return self._serve_panel(request)
            case "path":
                path = request.words[0] if request.words else ""
                return _succeed(explain_missing(path, request.cwd, self._setup))

    def _run(self, request: Request) -> dict[str, object]:
        order = build_order(request, self._setup)
        record: dict[str, object] = {
            "words": order.words,
            "body": order.body,
            "cwd": order.cwd,
            "kernel": self._setup.kernel_id,
        }
        if request.wanted:
            record |= {"wanted": request.wanted, "given": request.given}
        return self._carry_out(order, record)

    def _serve_panel(self, request: Request) -> dict[str, object]:
        record = build_record(request, self._setup, find_cwd)
        event = self._panels.run(record, self._send_text, self._connection.fileno())
        if event is None:
            return _STOPPED
        if event.get("error"):
            return {"code": 1, "error": event["error"], "value": None}
        if record["ask"] != "act":
            return _succeed(restrict(event["value"], self._setup))
        words = tuple(event["value"])
        admit(words, self._setup.level)
        order = Order(words, None, record["cwd"])
        own = {"is_own": True, "words": words, "cwd": order.cwd, "kernel": self._setup.kernel_id}
        return {**self._carry_out(order, own), "value": {"is_task": "--detach" in words}}

    def _carry_out(self, order: Order, record: Mapping[str, object]) -> dict[str, object]:
        self._log(f"runs: {render(order)}")
        event = self._executors.run(record, self._send_text, self._connection.fileno())
        if event is None:
            return _STOPPED
        answer = event["answer"]
        return {
            "code": answer["returncode"],
            "error": answer["error"],
            "value": answer["value"],
            "variables": event.get("found", {}),
        }

    def _complete(self, request: Request) -> dict[str, object]:
        """Words are only looked up; files are the container's own matter, which can see them for itself."""
        record = {"complete": request.words or ("",), "cell": request.stdin}
        event = self._executors.run(record, self._send_text, self._connection.fileno())
        return _STOPPED if event is None else _succeed(event["candidates"])

    def _send_text(self, stream: str, text: str) -> None:
        for start in range(0, len(text), _FRAME_CHARACTERS):
            self._send({stream: text[start : start + _FRAME_CHARACTERS]})

    def _send(self, record: Mapping[str, object]) -> None:
        self._connection.sendall(json.dumps(record).encode() + b"\n")


def render(order: Order) -> str:
    """The line for people and logs, without what looks like a secret."""
    return shlex.join(["apptainer", *redact_argv(list(order.words))])


def _succeed(value: object) -> dict[str, object]:
    return {"code": 0, "error": None, "value": value}
