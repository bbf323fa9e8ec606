"""Signals for a kernel, from the host: each exactly once, to the kernel and to the programs that it started.

They never go to the engine's own process: for a joined instance it does not forward them but dies, and takes the kernel with it.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from ..instances.process import ProcessIdentity, read_stat
from ..instances.table import ProcessTable

# A second interrupt within this time means that the first one had no effect.
ESCALATION_S = 2.0


class Signaller:
    """Sends signals to one kernel; remembers its interrupts."""

    def __init__(self) -> None:
        self._interrupts: list[float] = []

    def send(self, kernel: ProcessIdentity, signum: int) -> None:
        """Send `signum` to the kernel's group. An interrupt repeated within 2 s also goes to programs that left the group."""
        _signal_group(kernel, signum)
        if signum != signal.SIGINT:
            return
        now = time.monotonic()
        self._interrupts = [at for at in self._interrupts if now - at < ESCALATION_S] + [now]
        if len(self._interrupts) > 1:
            _signal_outside_group(kernel, signum)


def _signal_group(kernel: ProcessIdentity, signum: int) -> None:
    stat = read_stat(kernel.pid)
    if stat is None or stat.start_ticks != kernel.start_ticks:
        return
    if stat.pgid == kernel.pid:
        with suppress(ProcessLookupError):
            os.killpg(kernel.pid, signum)
        return
    # No session of its own: an image without setsid. The group is then the engine's, whose process must be left alone.
    kernel.send_signal(signum)
    for child in ProcessTable.read().find_descendants(kernel.pid):
        ProcessIdentity(child.pid, child.start_ticks).send_signal(signum)


def _signal_outside_group(kernel: ProcessIdentity, signum: int) -> None:
    group = read_stat(kernel.pid)
    for stat in ProcessTable.read().find_descendants(kernel.pid):
        if group and stat.pgid != group.pgid:
            ProcessIdentity(stat.pid, stat.start_ticks).send_signal(signum)
