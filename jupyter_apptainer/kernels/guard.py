"""Watches over one running kernel from a thread: its limits, what it should tell its user, and why it ended.

A thread, because some clients run no event loop between their calls. It sleeps until the kernel ends, a cell begins, or the
limits have to be looked at.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import zmq

from ..instances.oom import OomRecord
from ..instances.process import ProcessIdentity
from ..instances.watch import watch_exit
from .adopted import EngineProcess
from .gpu_trial import try_gpu
from .iopub import IopubListener
from .limits import LimitWatch, limit_tasks
from .plan import LaunchPlan
from .resources import ResourcePlan, format_size

PREFIX = "jupyter-apptainer: "
_REAP_S = 2.0
# What is waited for a message about the kernel's end to reach its clients.
_LAST_WORDS_S = 6.0
# Only used where Linux has no pidfds.
_BLIND_S = 1.0
# How long messages may collect. A cell that has just begun hears of something that much later.
_CALM_MS = 200


Log = logging.Logger | logging.LoggerAdapter[Any]


def start_guard(
    kernel: ProcessIdentity,
    process: EngineProcess,
    plan: LaunchPlan,
    environ: Mapping[str, str],
    connection: Mapping[str, Any],
    log: Log,
) -> KernelGuard:
    """Watch over a kernel that listens, and find out whether it can use the GPU that it was promised.

    process: the engine's program that mirrors the kernel's exit status. environ: the server's variables.
    """
    guard = KernelGuard(kernel, process, plan.resources, connection, log, label=plan.kernel_id or plan.instance_name)
    guard.start()
    if plan.gpu.problem:
        # In the log it is already, as a warning of the plan.
        guard.announce(plan.gpu.problem)
    elif plan.gpu.nv:
        threading.Thread(target=_report_gpu, args=(guard, plan, environ, log), name="gpu-trial", daemon=True).start()
    return guard


def _report_gpu(guard: KernelGuard, plan: LaunchPlan, environ: Mapping[str, str], log: Log) -> None:
    problem = try_gpu(plan, environ)
    if problem:
        log.warning("Kernel %s: %s", plan.kernel_id, problem)
        guard.announce(problem)


class KernelGuard(threading.Thread):
    """The guard of one kernel process; a restarted kernel gets another.

    process: the engine's program that mirrors the kernel's exit status. label: names the kernel in the log. Messages go to the log, and to the cell that runs.
    """

    def __init__(
        self,
        kernel: ProcessIdentity,
        process: EngineProcess,
        plan: ResourcePlan,
        connection: Mapping[str, Any],
        log: Log,
        *,
        label: str,
    ) -> None:
        super().__init__(name=f"kernel-guard-{kernel.pid}", daemon=True)
        self._kernel = kernel
        self._process = process
        self._connection = dict(connection)
        self._log = log
        self._label = label
        self._limits = LimitWatch(kernel, plan, self._say)
        self._oom = OomRecord.note(kernel.pid)
        self._announcements: list[str] = []
        self._is_dismissed = False
        self._bell, self._listener = socket.socketpair()
        self._bell.setblocking(False)
        self._plan = plan

    def announce(self, text: str) -> None:
        """Show `text` in the front end at the next cell; before the first there is no place for it."""
        self._announcements.append(text)
        self._wake()

    def dismiss(self) -> None:
        """The kernel's end, if it comes now, is wanted: nothing has to be explained."""
        self._is_dismissed = True
        self._wake()

    def finish(self, timeout_s: float = _LAST_WORDS_S) -> bool:
        """Wait until all is said, or so long; returns whether it is."""
        self.join(timeout_s)
        return not self.is_alive()

    def run(self) -> None:
        """The thread."""
        # A signal that Linux handed to this thread would wait until the main thread wakes for another reason: a server that is
        # asked to end would not.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            if self._plan.is_rlimit_used and self._plan.pids is not None:
                limit_tasks(self._kernel, self._plan.pids)
            with watch_exit(self._kernel.pid) as ended, IopubListener(self._connection) as iopub:
                self._watch(ended, iopub)
                if not self._is_dismissed:
                    self._explain_end(iopub)
        finally:
            self._bell.close()
            self._listener.close()

    def _watch(self, ended: int, iopub: IopubListener) -> None:
        alarms, poller = zmq.Poller(), zmq.Poller()
        for source in (self._listener.fileno(), *([ended] if ended >= 0 else [])):
            alarms.register(source, zmq.POLLIN)
            poller.register(source, zmq.POLLIN)
        poller.register(iopub.socket, zmq.POLLIN)
        while not self._is_dismissed and self._kernel.is_alive():
            wait_s = self._limits.look() if self._limits.is_needed else None
            if ended < 0:
                wait_s = min(wait_s or _BLIND_S, _BLIND_S)
            wait_ms = None if wait_s is None else int(wait_s * 1000)
            ready = dict(poller.poll(wait_ms))
            if self._listener.fileno() in ready:
                self._listener.recv(1024)
            has_news = iopub.drain()
            if iopub.cell:
                while self._announcements:
                    self._write(self._announcements.pop(0))
            if has_news:
                # Else each message would wake this thread just when its process works on the same one: a cell's round trip takes
                # a tenth longer then.
                alarms.poll(_CALM_MS if wait_ms is None else min(_CALM_MS, wait_ms))
        iopub.drain()

    def _explain_end(self, iopub: IopubListener) -> None:
        """Say why the kernel ended, where that is known and nobody has asked for it."""
        text = self._limits.verdict or self._find_reason()
        if not text:
            return
        self._log.error("Kernel %s: %s", self._label, text)
        try:
            if not iopub.speak_for_the_dead(f"{PREFIX}{text}\n"):
                self._log.info("Kernel %s: no front end was there to show this", self._label)
        except (OSError, zmq.ZMQError) as error:
            self._log.warning("Kernel %s: this could not be shown in the front end: %s", self._label, error)

    def _find_reason(self) -> str:
        evidence = self._oom.explain()
        if not evidence:
            return ""
        with suppress(subprocess.TimeoutExpired):
            if self._process.wait(_REAP_S) == -signal.SIGKILL:
                return f"the kernel was killed, probably because memory ran out{self._describe_limit()}: {evidence}"
        return ""

    def _describe_limit(self) -> str:
        has_own = self._plan.is_cgroup_used and self._plan.memory_bytes is not None
        return f" (its limit is {format_size(self._plan.memory_bytes or 0)})" if has_own else ""

    def _say(self, text: str) -> None:
        self._log.warning("Kernel %s: %s", self._label, text)
        self._write(text)

    def _write(self, text: str) -> None:
        """Write to the kernel's standard error, which ipykernel passes on to the cell that ran last."""
        with suppress(OSError):
            descriptor = os.open(
                f"/proc/{self._kernel.pid}/fd/2", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
            )
            try:
                os.write(descriptor, f"{PREFIX}{text}\n".encode())
            finally:
                os.close(descriptor)

    def _wake(self) -> None:
        # Full, or closed because the thread has ended: either way nobody has to be woken.
        with suppress(OSError):
            self._bell.send(b"!")
