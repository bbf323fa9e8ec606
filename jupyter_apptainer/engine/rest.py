"""Ends what a stopped command has left behind in its session.

The engine gives each FUSE program a process group of its own, and leaves it behind when it is ended between the start of one and the mount:
only the session tells then whose it was.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

# A FUSE program unmounts first, and writes back what it has.
_PATIENCE_S = 5.0


def end_session(session: int) -> None:
    """Ask all processes of a session to end, kill those that do not, and return when they are gone."""
    with _Watched(session) as left:
        left.signal(signal.SIGTERM)
        if not left.wait(_PATIENCE_S):
            left.signal(signal.SIGKILL)
            left.wait(_PATIENCE_S)


class _Watched:
    """Processes by descriptors, which mean no other process when a number is used again."""

    def __init__(self, session: int) -> None:
        self._descriptors: list[int] = []
        for pid in _iter_members(session):
            with suppress(ProcessLookupError):
                self._descriptors.append(os.pidfd_open(pid))

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)

    def signal(self, signum: signal.Signals) -> None:
        for descriptor in self._descriptors:
            # Another user's, such as those of a setuid engine, end by themselves or not at all.
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(descriptor, signum)

    def wait(self, limit_s: float) -> bool:
        """Return True when all have ended, False when the time is over."""
        deadline = time.monotonic() + limit_s
        poll = select.poll()
        running = set(self._descriptors)
        for descriptor in running:
            poll.register(descriptor, select.POLLIN)
        while running:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            for descriptor, _ in poll.poll(left_s * 1000):
                poll.unregister(descriptor)
                running.discard(descriptor)
        return True


def _iter_members(session: int) -> Iterator[int]:
    for name in os.listdir("/proc"):
        # It may end, or be hidden (hidepid), between the two looks.
        with suppress(ProcessLookupError, PermissionError, ValueError):
            if os.getsid(int(name)) == session:
                yield int(name)
