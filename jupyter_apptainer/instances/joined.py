"""Kernels that have joined an instance, as processes of the host: find one, and end one with everything that it started.

An instance can have several. Each hangs below an engine's process of its own, and leads a session of its own where it could.
"""

from __future__ import annotations

import signal

from .process import ProcessIdentity, ProcessStat, read_children, read_namespace
from .table import ProcessTable

_END_TIMEOUT_S = 5.0


def find_joined(engine_pid: int, pid_namespace: int) -> ProcessIdentity | None:
    """Return the process that joined the instance: the engine's only child there. None before it has, and after its end."""
    for pid in read_children(engine_pid):
        if read_namespace(pid, "pid") == pid_namespace:
            return ProcessIdentity.find(pid)
    return None


def kill_joined(kernel: ProcessIdentity, pid_namespace: int) -> None:
    """End the kernel and what it started, at once; works also where the kernel itself has ended already."""
    victims = list_victims(kernel, pid_namespace)
    kernel.send_signal(signal.SIGKILL)
    for stat in victims:
        ProcessIdentity(stat.pid, stat.start_ticks).send_signal(signal.SIGKILL)


def list_victims(kernel: ProcessIdentity, pid_namespace: int, table: ProcessTable | None = None) -> list[ProcessStat]:
    """Return the processes that the kernel started: those below it, and those of its session that have another parent by now.

    A pid is not given away again while it names a session, and the namespace excludes what is not in the instance. table: where
    to look, by default as it is now.
    """
    table = table or ProcessTable.read()
    found = table.find_descendants(kernel.pid) if table.is_alive(kernel) else []
    known = {stat.pid for stat in found} | {kernel.pid}
    strays = (stat for stat in table.list_session(kernel.pid) if stat.pid not in known)
    return found + [
        stat
        for stat in strays
        if stat.start_ticks >= kernel.start_ticks and read_namespace(stat.pid, "pid") == pid_namespace
    ]


def end_joined(process: ProcessIdentity, kernel: ProcessIdentity | None, pid_namespace: int) -> bool:
    """End one kernel of an instance that others go on using; True when it has ended. process: the engine's for this kernel."""
    kernel = kernel or (find_joined(process.pid, pid_namespace) if process.is_alive() else None)
    if kernel is not None:
        kill_joined(kernel, pid_namespace)
        kernel.wait_gone(_END_TIMEOUT_S)
    else:
        # Not joined yet: nothing is mounted by it, so that it may be shot.
        process.send_signal(signal.SIGKILL)
    return process.wait_gone(_END_TIMEOUT_S)
