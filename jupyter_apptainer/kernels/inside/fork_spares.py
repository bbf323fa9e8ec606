"""Runs inside the container: the kernels that `fork_server.py` has ready for the next starts, and when it makes them.

They are its children, as kernels are, and end with it. What they do themselves is in `fork_spare.py`.
Python 3.8 and newer, standard library only.
"""

from __future__ import annotations

import array
import base64
import json
import os
import shutil
import signal
import socket
import time
from typing import Any

START_S = 60.0
RESERVE_BYTES = 1 << 30
# So often a spare waits once more for a machine that is busy.
POSTPONED = 5


class Spare:
    """A kernel that nobody has asked for. line: to it; readable when it is ready, and when it has ended."""

    def __init__(self, pid: int, folder: str, line: socket.socket) -> None:
        self.pid = pid
        self.folder = folder
        self.line = line
        self.is_ready = False
        self.ends_at = time.monotonic() + START_S


class Spares:
    """At most as many as the settings say: "before" the first kernel, "after" it; made "settle_s" seconds after a fork, ended "idle_s" after that, and
    where they do not answer a request within "patience_s"."""

    def __init__(self, folder: str, settings: dict[str, Any], *, is_first: bool) -> None:
        self.folder = folder
        self.settings = settings
        self.limit = settings["before" if is_first else "after"]
        self.spares: list[Spare] = []
        # When the next one is made; None: not before another kernel was asked for.
        self.due = time.monotonic() if is_first and self.limit else None
        # Before there is a kernel nobody has to be waited for.
        self.postponed = POSTPONED

    @property
    def is_settled(self) -> bool:
        """Nothing more will come by itself."""
        return self.due is None and all(spare.is_ready for spare in self.spares)

    def list_lines(self) -> list[socket.socket]:
        """Return what has to be waited on."""
        return [spare.line for spare in self.spares]

    def find_wait(self) -> float | None:
        """Return the seconds until there is something to do; None: nothing by itself."""
        times = [spare.ends_at for spare in self.spares]
        times += [] if self.due is None else [self.due]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def note_kernel(self) -> None:
        """There is another kernel: it goes first."""
        self.limit = self.settings["after"]
        self.postponed = 0
        self.due = time.monotonic() + self.settings["settle_s"] if self.limit else None

    def look(self) -> None:
        """See who is ready, who has ended, and who is too old."""
        for spare in list(self.spares):
            if not spare.is_ready:
                self.hear(spare)
            elif has_ended(spare):
                self.end(spare)
        for spare in [spare for spare in self.spares if spare.ends_at <= time.monotonic()]:
            self.due = None
            self.end(spare)

    def hear(self, spare: Spare) -> None:
        """Read whether it is ready."""
        try:
            word = spare.line.recv(16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            word = b""
        if not word:
            # It does not fit, and another one would not fit either.
            self.due = None
            self.end(spare)
            return
        spare.is_ready = True
        spare.ends_at = time.monotonic() + self.settings["idle_s"]

    def fork(self) -> Spare | None:
        """Make one where it is time to. In the child the spare that it is; `line` is to the server then."""
        if self.due is None or self.due > time.monotonic():
            return None
        if len(self.spares) >= self.limit or not has_memory():
            self.due = None
            return None
        if is_busy() and self.postponed < POSTPONED:
            self.postponed += 1
            self.due = time.monotonic() + self.settings["settle_s"]
            return None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        folder = make_folder(self.folder)
        try:
            pid = os.fork()
        except OSError:
            self.due = None
            shutil.rmtree(folder, ignore_errors=True)
            return None
        if pid == 0:
            ours.close()
            return Spare(os.getpid(), folder, theirs)
        theirs.close()
        self.spares.append(Spare(pid, folder, ours))
        if len(self.spares) >= self.limit:
            self.due = None
        return None

    def hand_over(self, connection: socket.socket, request: dict[str, Any]) -> int:
        """Have one become the kernel that is asked for; returns its pid, 0 where none does."""
        for spare in [spare for spare in self.spares if spare.is_ready]:
            if pass_on(spare.line, connection, request, self.settings["patience_s"]):
                self.spares.remove(spare)
                spare.line.close()
                return spare.pid
            self.end(spare)
        return 0

    def end(self, spare: Spare) -> None:
        """End one, and wait until it has ended."""
        self.spares.remove(spare)
        os.kill(spare.pid, signal.SIGKILL)
        os.waitpid(spare.pid, 0)
        spare.line.close()
        shutil.rmtree(spare.folder, ignore_errors=True)

    def clear(self) -> None:
        """End all of them."""
        for spare in list(self.spares):
            self.end(spare)

    def close(self) -> None:
        """In a child: they are its parent's."""
        for spare in self.spares:
            spare.line.close()


def make_folder(parent: str) -> str:
    """Make one with a name that no other has had: libzmq removes its sockets by name when a kernel ends. Short, for paths of sockets are."""
    while True:
        folder = os.path.join(parent, base64.b32encode(os.urandom(5)).decode()[:3])
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            continue
        return folder


def pass_on(line: socket.socket, connection: socket.socket, request: dict[str, Any], patience_s: float) -> bool:
    """Give a spare what is asked for, and who asks; says whether it takes it."""
    descriptors = array.array("i", [connection.fileno()])
    line.settimeout(patience_s)
    try:
        line.sendmsg([json.dumps(request).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        return bool(line.recv(16))
    except OSError:
        return False


def has_ended(spare: Spare) -> bool:
    """Say whether one that was ready has ended: then its line is closed."""
    try:
        return not spare.line.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def has_memory() -> bool:
    """Say whether this machine has memory for what only saves time."""
    try:
        with open("/proc/meminfo", encoding="utf-8") as stream:
            for text in stream:
                if text.startswith("MemAvailable:"):
                    return int(text.split()[1]) * 1024 >= RESERVE_BYTES
    except OSError:
        pass
    return True


def is_busy() -> bool:
    """Say whether more programs want to run than there are processors, beside this one."""
    try:
        with open("/proc/loadavg", encoding="utf-8") as stream:
            running = int(stream.read().split()[3].split("/")[0])
    except OSError:
        return False
    return running - 1 >= (os.cpu_count() or 1)
