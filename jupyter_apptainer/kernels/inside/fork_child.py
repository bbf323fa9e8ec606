"""Runs inside the container: what turns a fork of `fork_server.py` into a kernel's process.

Python 3.8 and newer, standard library only.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

# Of each kernel, and nothing that a library reads when it is loaded.
OWN_NAMES = ("JPY_SESSION_NAME", "JUPYTER_APPTAINER_SOCK", "KERNEL_")
# Within that time libzmq connects again to what has come back: it tries every 0.1 to 0.2 s.
RECONNECT_S = 0.3


def become(connection: socket.socket, request: dict[str, Any], names: list[str] | None) -> list[str]:
    """Turn a fork into a process as `exec instance://…` would have started it, and wait for the word to go. Returns the command that it is to run."""
    os.setsid()
    adopt_environment(request["env"], request["cwd"], names)
    redirect(request["log"])
    os.chdir(request["cwd"])
    run_on(request["processors"])
    draw_seeds()
    if request["is_restart"]:
        hold_first_cell()
    importlib.invalidate_caches()
    # Its sender's pid is seen by the receiver as the host counts. Where nobody answers, nobody wants this kernel any more.
    if not ask_leave(connection):
        os._exit(1)
    connection.close()
    command: list[str] = request["argv"]
    return command


def ask_leave(connection: socket.socket) -> bool:
    """Say who is there, and wait for the word to go; False where nobody gives it."""
    try:
        connection.sendall(json.dumps({"kernel": os.getpid()}).encode())
        return bool(connection.recv(16))
    except OSError:
        return False


def adopt_environment(env: dict[str, str], cwd: str, names: list[str] | None) -> None:
    """Set what `exec` would have set. names: those of another kernel; None where the variables are this one's already."""
    if names is not None:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(env)
    for prefix in ("APPTAINER", "SINGULARITY"):
        if prefix + "_COMMAND" in os.environ:
            os.environ[prefix + "_COMMAND"] = "exec"
        if prefix + "_BIND" in os.environ:
            os.environ[prefix + "_BIND"] = ""
    os.environ["PWD"] = cwd
    os.environ.pop("OLDPWD", None)


def run_on(processors: list[int]) -> None:
    """Have every thread of this process run there; empty: where it may already."""
    if processors:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), processors)


def redirect(log: str) -> None:
    """Have what the kernel prints go to its own log."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(nothing)
    os.close(descriptor)


def hold_first_cell() -> Callable[[float], None]:
    """Have no cell run before clients listen again: those of the kernel before this one connect anew, each channel when it likes to.

    Else the output of a cell that is sent right after a restart would be lost. A kernel that is not forked takes longer than that by itself.
    Called before there is a kernel. The time runs from when that is made; what is returned has it run from now on.
    """
    import inspect

    until = 0.0

    def hold(seconds: float) -> None:
        nonlocal until
        until = time.monotonic() + seconds

    kernelbase = sys.modules.get("ipykernel.kernelbase")
    if kernelbase is None or not inspect.iscoroutinefunction(kernelbase.Kernel.execute_request):
        return hold
    begin, run = kernelbase.Kernel.__init__, kernelbase.Kernel.execute_request

    @functools.wraps(begin)
    def initialize(*arguments: Any, **keywords: Any) -> None:
        # Its sockets listen since just now.
        hold(RECONNECT_S)
        begin(*arguments, **keywords)

    @functools.wraps(run)
    async def execute_request(*arguments: Any, **keywords: Any) -> None:
        # Not asyncio's sleep: an interrupt in the event loop itself would end the kernel.
        time.sleep(max(0.0, until - time.monotonic()))  # noqa: ASYNC251
        await run(*arguments, **keywords)

    kernelbase.Kernel.__init__ = initialize
    kernelbase.Kernel.execute_request = execute_request
    return hold


def draw_seeds() -> None:
    """Draw the seeds anew that were drawn before the fork; `random` does it by itself."""
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None:
        processes.current_process().authkey = os.urandom(32)
