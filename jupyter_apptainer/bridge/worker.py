"""The process that serves the bridge of one kernel: `python -m jupyter_apptainer.bridge.worker DESCRIPTOR`.

Started by `listener` when somebody connects. Standard input is the setup in one line, and then open for as long as the kernel's owner
lives: its end stops all commands and this process. Standard output takes lines for the owner's log. Ends by itself when idle.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from contextlib import suppress

from ..errors import ApptainerError, BridgeError
from ..instances.process import read_namespace
from .executor import PANELS, Executors
from .model import BridgeSetup
from .order import clean_environment
from .session import Session

IDLE_S = 300.0
# More than a person opens; each is a thread.
MAX_SESSIONS = 16
_LINES_PER_MINUTE = 120
_LINE_CHARACTERS = 500
# The stop ladder has to come to its end.
_STOP_S = 40.0


class LineLog:
    """Writes single printable lines, and not more of them than a log can bear: their words are a stranger's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._minute = 0
        self._count = 0

    def __call__(self, text: str) -> None:
        with self._lock:
            minute = int(time.monotonic() // 60)
            self._count = self._count + 1 if minute == self._minute else 1
            self._minute = minute
            if self._count == _LINES_PER_MINUTE:
                text = "more lines follow in this minute, which are left out"
            if self._count <= _LINES_PER_MINUTE:
                line = text if text.isprintable() else ascii(text)
                with suppress(OSError):
                    os.write(1, line[:_LINE_CHARACTERS].encode("utf-8", "replace") + b"\n")


class Worker:
    """Accepts clients from the kernel's own container until its owner closes standard input."""

    def __init__(self, server: socket.socket, setup: BridgeSetup, log: LineLog) -> None:
        self._server = server
        self._setup = setup
        self._log = log
        environ = clean_environment(os.environ)
        self._executors = Executors(environ)
        self._panels = Executors(environ, PANELS, is_prepared=False)
        self._sessions: dict[threading.Thread, socket.socket] = {}

    def run(self) -> None:
        """Serve until the owner is gone, or nobody has asked for a while."""
        poller = select.poll()
        poller.register(self._server, select.POLLIN)
        poller.register(0, select.POLLIN | select.POLLHUP)
        while True:
            ready = dict(poller.poll(IDLE_S * 1000))
            self._forget_ended()
            if 0 in ready or (not ready and not self._sessions):
                break
            if self._server.fileno() in ready:
                with suppress(OSError):
                    self._accept()
        self._stop_all()

    def _accept(self) -> None:
        connection, _ = self._server.accept()
        try:
            check_peer(connection, self._setup)
            if len(self._sessions) >= MAX_SESSIONS:
                raise BridgeError(
                    f"{MAX_SESSIONS} requests of this kernel are served already", hint="wait for one to end"
                )
        except ApptainerError as error:
            self._log(f"refused: {error.message}")
            with connection, suppress(OSError):
                connection.setblocking(False)
                connection.send(
                    json.dumps({"end": {"code": 1, "error": error.to_json(), "value": None}}).encode() + b"\n"
                )
            return
        session = Session(connection, self._setup, self._executors, self._panels, self._log)
        thread = threading.Thread(target=session.serve, daemon=True)
        self._sessions[thread] = connection
        thread.start()

    def _forget_ended(self) -> None:
        self._sessions = {thread: connection for thread, connection in self._sessions.items() if thread.is_alive()}

    def _stop_all(self) -> None:
        deadline = time.monotonic() + _STOP_S
        for connection in self._sessions.values():
            # To the session this is the client's end.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._sessions:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._executors.close()
        self._panels.close()


def check_peer(connection: socket.socket, setup: BridgeSetup) -> None:
    """Refuse everybody but processes of this user in the PID namespace of the kernel's instance. Raises BridgeError."""
    size = struct.calcsize("3i")
    pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    if uid != os.getuid():
        raise BridgeError(f"user {uid} may not use this kernel's bridge")
    if read_namespace(pid, "pid") != setup.instance.pid_namespace:
        raise BridgeError(
            f"process {pid} is not in this kernel's container", hint="each container has a bridge of its own"
        )


def main() -> None:
    """Run by the listener."""
    # The thread that started us takes no signals, and that is inherited; the stop ladder is made of them.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    server = socket.socket(fileno=int(sys.argv[1]))
    # Somebody who connects and is gone again must not make us wait in `accept`.
    server.setblocking(False)
    # Nothing of it may stay in a buffer: the end of standard input is seen by poll.
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(0, 1 << 20)
        if not data:
            return
        line += data
    Worker(server, BridgeSetup.from_json(json.loads(line)), LineLog()).run()


if __name__ == "__main__":
    main()
