"""Kernels that the fork server of their instance starts: the request, and the process that comes of it.

The other side is `fork_server.py`, in the container. What is in the container may write into the socket's folder, so nothing that is
read from it decides more than which process of that container is the kernel: Linux itself names the sender's pid, as the host counts.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ..instances.model import Instance
from ..instances.process import ProcessIdentity, read_children, read_exit_status, read_namespace
from ..instances.watch import DirectoryWatch, wait_readable, watch_exit
from .adopted import UNKNOWN_STATUS
from .forking import BELL, START_SCRIPT
from .plan import LaunchPlan

_MESSAGE_BYTES = 1 << 16
# The server reports a kernel's end at once; where it cannot, the status is not known.
_REPORT_S = 2.0
# unix(7): pid, uid and gid.
_CREDENTIALS = struct.Struct("iii")
_SCM_CREDENTIALS = 2


class NotForked(Exception):
    """The kernel has to be started in the other way; says why."""


class ForkedKernel:
    """A kernel as its server's child: its exit status comes over the connection. The `EngineProcess` of such a kernel."""

    def __init__(self, identity: ProcessIdentity, connection: socket.socket) -> None:
        self.pid = identity.pid
        self.identity = identity
        self._connection: socket.socket | None = connection
        self._status: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """None while it runs, else its exit status; UNKNOWN_STATUS where the server is gone."""
        if self._look() is None and not self.identity.is_alive():
            # While its server rests nobody reaps it.
            status = read_exit_status(self.identity)
            if status is None:
                self._wait_report(_REPORT_S)
                status = UNKNOWN_STATUS
            with self._lock:
                self._status = status if self._status is None else self._status
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end. Raises TimeoutExpired."""
        patience_s = 3600.0 if timeout is None else timeout
        if not self.identity.wait_gone(patience_s):
            raise subprocess.TimeoutExpired(["(forked)"], patience_s)
        status = self.poll()
        assert status is not None
        return status

    def kill(self) -> None:
        """End it."""
        self.identity.send_signal(signal.SIGKILL)

    def _wait_report(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self._look() is None and (connection := self._connection) is not None:
            poller = select.poll()
            poller.register(connection, select.POLLIN)
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return

    def _look(self) -> int | None:
        with self._lock:
            if self._connection is not None:
                self._read(self._connection)
            return self._status

    def _read(self, connection: socket.socket) -> None:
        try:
            message = _parse(connection.recv(_MESSAGE_BYTES, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return
        except OSError:
            message = {}
        if isinstance(message.get("ended"), int):
            self._status = message["ended"]
        connection.close()
        self._connection = None


@dataclass
class Forked:
    """A kernel that was forked. left_out: modules that were not preloaded, and why."""

    kernel: ForkedKernel
    left_out: Mapping[str, str] = field(default_factory=dict)


async def fork_kernel(
    plan: LaunchPlan, instance: Instance, log_path: str, timeout_s: float, *, is_restart: bool = False
) -> Forked:
    """Have the instance's fork server start the kernel. is_restart: clients of an earlier one will connect to it again.

    Raises NotForked where it cannot.
    """
    deadline = time.monotonic() + timeout_s
    assert plan.fork_server is not None
    await _wait_server(plan.fork_server.socket, instance, deadline)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        connection.connect(plan.fork_server.socket)
        connection.sendall(json.dumps(_build_request(plan, log_path, is_restart=is_restart)).encode())
        wake_server(plan)
        forked = await _receive_kernel(connection, instance, deadline)
        connection.sendall(b"go")
    except BaseException as error:
        # A kernel that was forked, and is told nothing, ends.
        connection.close()
        if isinstance(error, OSError):
            raise NotForked(f"its fork server does not answer ({error.strerror or error})") from error
        raise
    return forked


async def wait_ready(plan: LaunchPlan, instance: Instance, timeout_s: float) -> None:
    """Wait until the instance's fork server has imported what it shall. Raises NotForked where it cannot."""
    deadline = time.monotonic() + timeout_s
    assert plan.fork_server is not None
    await _wait_server(plan.fork_server.socket, instance, deadline)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            connection.connect(plan.fork_server.socket)
            # Nobody's options: it refuses as soon as it could fork.
            connection.sendall(json.dumps({"options": None}).encode())
        except OSError as error:
            raise NotForked(f"its fork server does not answer ({error.strerror or error})") from error
        if not await wait_readable([connection.fileno()], max(0.0, deadline - time.monotonic())):
            raise NotForked("its fork server did not answer in time")


async def _wait_server(path: str, instance: Instance, deadline: float) -> None:
    """Wait until the server can be asked. It is the instance's main process: the child of its process 1."""
    folder = os.path.dirname(path)
    if not os.path.exists(os.path.join(folder, START_SCRIPT)):
        raise NotForked("the instance was started without a fork server")
    main = next(iter(read_children(instance.init.pid)), None)
    if main is None:
        raise NotForked("its fork server has ended")
    if os.path.exists(path):
        return
    with DirectoryWatch(folder) as watch, watch_exit(main) as ended:
        while not os.path.exists(path):
            left = deadline - time.monotonic()
            if left <= 0 or main not in read_children(instance.init.pid):
                raise NotForked("its fork server did not come up")
            await wait_readable([watch.fileno(), ended], left)
            watch.drain()


def wake_server(plan: LaunchPlan) -> None:
    """Wake the instance's fork server, if it rests: in its place a shell waits for a line then. Returns at once."""
    assert plan.fork_server is not None
    with suppress(OSError):
        # Whoever is in the container may have put something else there.
        descriptor = os.open(plan.fork_server.socket + BELL, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                os.write(descriptor, b"\n")
        finally:
            os.close(descriptor)


def _build_request(plan: LaunchPlan, log_path: str, *, is_restart: bool) -> dict[str, Any]:
    assert plan.fork_server is not None
    return {
        "options": plan.fork_server.options,
        "argv": plan.fork_server.argv,
        "env": plan.container_env,
        "cwd": plan.cwd,
        "log": log_path,
        "is_restart": is_restart,
        "processors": plan.resources.processors,
    }


async def _receive_kernel(connection: socket.socket, instance: Instance, deadline: float) -> Forked:
    left_out: Mapping[str, str] = {}
    while True:
        if not await wait_readable([connection.fileno()], max(0.0, deadline - time.monotonic())):
            raise NotForked("its fork server did not answer in time")
        data, ancillary, _, _ = connection.recvmsg(_MESSAGE_BYTES, socket.CMSG_SPACE(_CREDENTIALS.size))
        message = _parse(data)
        if not message:
            raise NotForked("its fork server has ended")
        if message.get("refused"):
            raise NotForked(str(message["refused"]))
        if isinstance(message.get("left_out"), dict):
            left_out = {str(name): str(reason) for name, reason in message["left_out"].items()}
        if "kernel" in message:
            return Forked(ForkedKernel(_identify_sender(ancillary, instance), connection), left_out)
        if "ended" in message:
            raise NotForked(f"what its fork server has forked ended at once (exit status {message['ended']})")


def _identify_sender(ancillary: list[tuple[int, int, bytes]], instance: Instance) -> ProcessIdentity:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SCM_CREDENTIALS):
            pid, _, _ = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])
            identity = ProcessIdentity.find(pid)
            if identity and read_namespace(pid, "pid") == instance.pid_namespace and identity.is_alive():
                return identity
    raise NotForked("what its fork server has forked cannot be found")


def _parse(data: bytes) -> dict[str, Any]:
    try:
        message = json.loads(data)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
