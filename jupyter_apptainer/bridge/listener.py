"""The host side of a bridge in the kernel's owner: a socket, and a thread that sleeps until somebody connects.

Then a worker takes the socket over, as inetd had it. So a kernel that never asks costs nothing, and what is asked is read, judged and
run in a process that the server does not depend on.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

from .model import SOCKET, BridgeSetup

Log = logging.Logger | logging.LoggerAdapter[Any]
_BACKLOG = 64
_PATIENCE_S = 1.0
# A worker ends its commands by the stop ladder before it ends itself.
_LADDER_S = 60.0


class BridgeListener(threading.Thread):
    """The bridge of one kernel. folder: the kernel's own, which the container has at the same path."""

    def __init__(self, setup: BridgeSetup, folder: str, log: Log) -> None:
        super().__init__(name=f"bridge-{setup.instance.name}", daemon=True)
        self._setup = setup
        self._path = os.path.join(folder, SOCKET)
        self._log = log
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._bell, self._listener = socket.socketpair()

    def open(self) -> None:
        """Listen. What an earlier owner of the kernel has left at the path is replaced."""
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        self._server.bind(self._path)
        os.chmod(self._path, 0o600)
        self._server.listen(_BACKLOG)
        self.start()

    def dismiss(self) -> None:
        """Accept nobody any more, and stop what is being served. Does not wait for that."""
        with suppress(OSError):
            self._bell.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """The same, and wait for it a little. What takes longer to stop is stopped all the same, by the worker."""
        self.dismiss()
        with suppress(OSError):
            os.unlink(self._path)
        self.join(_PATIENCE_S)

    def run(self) -> None:
        """The thread."""
        # As with a kernel's guard: signals are for the main thread.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            while self._is_called(self._server.fileno()):
                self._serve()
        finally:
            for end in (self._server, self._bell, self._listener):
                end.close()

    def _is_called(self, wanted: int) -> bool:
        """Wait until `wanted` can be read; False where the bridge is being closed."""
        poller = select.poll()
        poller.register(wanted, select.POLLIN)
        poller.register(self._listener, select.POLLIN)
        return self._listener.fileno() not in dict(poller.poll())

    def _serve(self) -> None:
        """Run a worker to its end."""
        descriptor = self._server.fileno()
        worker = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.worker", str(descriptor)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            pass_fds=[descriptor],
            start_new_session=True,
        )
        assert worker.stdin is not None
        assert worker.stdout is not None
        with worker.stdout:
            with suppress(BrokenPipeError):
                worker.stdin.write(json.dumps(self._setup.to_json()).encode() + b"\n")
                worker.stdin.flush()
            self._pass_on_lines(worker.stdout.fileno())
            with suppress(BrokenPipeError):
                # This ends it, if it has not ended by itself.
                worker.stdin.close()
            self._end(worker)

    def _pass_on_lines(self, descriptor: int) -> None:
        """Log what the worker says until it ends, or until the bridge is being closed."""
        rest = b""
        while self._is_called(descriptor):
            data = os.read(descriptor, 65536)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._log.info("Bridge of kernel %s: %s", self._setup.kernel_id, line.decode("utf-8", "replace"))

    def _end(self, worker: subprocess.Popen[bytes]) -> None:
        try:
            returncode = worker.wait(_LADDER_S)
        except subprocess.TimeoutExpired:
            worker.kill()
            returncode = worker.wait()
        if returncode:
            self._log.error("The bridge of kernel %s failed with status %s", self._setup.kernel_id, returncode)
            self._drop_waiting()

    def _drop_waiting(self) -> None:
        """Send away who waits, so that a worker that cannot run is not started for ever."""
        self._server.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self._server.accept()[0].close()
        self._server.setblocking(True)
