"""The engine's process of a kernel, whether this process started it or took it over from one that is gone."""

from __future__ import annotations

import subprocess
from typing import Protocol

from ..instances.process import ProcessIdentity

# A process that is no child of ours tells nobody how it ended.
UNKNOWN_STATUS = 1


class EngineProcess(Protocol):
    """What `subprocess.Popen` and `AdoptedProcess` have in common."""

    pid: int

    def poll(self) -> int | None:
        """None while it runs, else its exit status."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end. Raises TimeoutExpired."""

    def kill(self) -> None:
        """End it."""


class AdoptedProcess:
    """A process that somebody else started: it can be watched and ended, but its exit status is not known."""

    def __init__(self, identity: ProcessIdentity) -> None:
        self.pid = identity.pid
        self._identity = identity

    def poll(self) -> int | None:
        """None while it runs, else UNKNOWN_STATUS."""
        return None if self._identity.is_alive() else UNKNOWN_STATUS

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end. Raises TimeoutExpired."""
        if not self._identity.wait_gone(3600.0 if timeout is None else timeout):
            raise subprocess.TimeoutExpired(["(adopted)"], timeout or 3600.0)
        return UNKNOWN_STATUS

    def kill(self) -> None:
        """End it."""
        self._identity.send_signal(9)
