"""A real Jupyter server on loopback, and a kernel's websocket as a front end holds it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import websocket

from tests.integration.conftest import TIMEOUT_S

TOKEN = "loopback"
Message = dict[str, Any]


class Server:
    """`jupyter server` or another program of its kind, in a process of its own. Ended by `end`, if nothing else has."""

    def __init__(self, root: Path, *options: str, module: str = "jupyter_server", python: str = sys.executable) -> None:
        self.log: list[str] = []
        self.process = subprocess.Popen(
            [
                python,
                "-m",
                module,
                "--no-browser",
                "--allow-root",
                "--ServerApp.port=0",
                "--IOLoopKernelRestarter.time_to_dead=0.3",
                "--ServerApp.answer_yes=True",
                *options,
            ],
            cwd=root,
            env=os.environ | {"JUPYTER_TOKEN": TOKEN},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        self._has_news = threading.Condition()
        self._reader = threading.Thread(target=self._read, name="server-log", daemon=True)
        self._reader.start()
        try:
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", self.wait_log("http://127.0.0.1:"))
            assert found
            self.address = f"127.0.0.1:{found[1]}"
            self._wait_listening(int(found[1]))
        except BaseException:
            self.end()
            raise

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._has_news:
                self.log.append(line)
                self._has_news.notify_all()

    def wait_log(self, text: str) -> str:
        """Wait until the log has a line with `text`; returns the line."""
        with self._has_news:
            self._has_news.wait_for(lambda: any(text in line for line in self.log), TIMEOUT_S)
            return next(line for line in self.log if text in line)

    def _wait_listening(self, port: int) -> None:
        """Nothing tells when a port begins to listen; the server speaks of it a little earlier."""
        while self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except ConnectionRefusedError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError("".join(self.log))

    def end(self) -> None:
        """End the server, if nothing else has. Asked twice: the handler of a signal that comes just before the server's loop
        goes to sleep runs when something wakes that loop, and nothing might.
        """
        for _ in range(2):
            if self.process.poll() is None:
                self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                continue
            break
        self.wait()

    def wait(self) -> int:
        """Wait for the server's end; returns its status. One that does not end is killed, so that it does not hold up the tests."""
        try:
            status = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(30)
            raise AssertionError("the server did not end:\n" + "".join(self.log)) from None
        self._reader.join(30)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return status

    def open(self, method: str, path: str, body: object = None) -> Any:
        """Send a request; returns urllib's response. Raises HTTPError for a status of 400 and above."""
        request = urllib.request.Request(
            f"http://{self.address}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {TOKEN}"},
        )
        return urllib.request.urlopen(request, timeout=TIMEOUT_S)

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Send a request; returns the status and the decoded answer."""
        try:
            with self.open(method, path, body) as response:
                status, content = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        return status, json.loads(content) if content else None

    def start_kernel(self, name: str) -> str:
        """Start a kernel; returns its id."""
        status, model = self.ask("POST", "api/kernels", {"name": name})
        assert status == 201, model
        return str(model["id"])


@dataclass
class Channels:
    """A kernel's websocket, as a front end holds it."""

    server: Server
    kernel_id: str
    session: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        self._socket = websocket.create_connection(
            f"ws://{self.server.address}/api/kernels/{self.kernel_id}/channels?session_id={self.session}",
            header=[f"Authorization: token {TOKEN}"],
            timeout=TIMEOUT_S,
        )

    def __enter__(self) -> Channels:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def execute(self, code: str) -> str:
        """Send a cell; returns the message's id."""
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": "execute_request",
            "session": self.session,
            "username": "",
            "version": "5.4",
            "date": "2026-01-01T00:00:00Z",
        }
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        message = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}
        self._socket.send(json.dumps(message))
        return header["msg_id"]

    def receive(self) -> Message:
        message: Message = json.loads(self._socket.recv())
        return message

    def wait_text(self, text: str) -> None:
        while text not in (self.receive()["content"].get("text") or ""):
            pass

    def wait_state(self, *states: str) -> str:
        """Wait until the kernel is said to be in one of `states`; returns which."""
        while (found := self.receive()["content"].get("execution_state")) not in states:
            pass
        return str(found)

    def finish(self, msg_id: str) -> tuple[str, str]:
        """Collect a cell until reply and idle are there; returns status or the error's name, and what was printed."""
        status, text, is_idle = "", "", False
        while not (status and is_idle):
            message = self.receive()
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "stream":
                    text += content["text"]
                case "status":
                    is_idle = is_idle or content["execution_state"] == "idle"
                case "execute_reply":
                    status = content.get("ename") or content["status"]
        return status, text

    def run(self, code: str) -> tuple[str, str]:
        return self.finish(self.execute(code))
