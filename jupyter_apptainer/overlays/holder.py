"""Who uses an overlay image right now, so that "in use by another process" can have a name.

The engine locks the file with fcntl(2) open file description locks, which belong to no pid; the FUSE helper that inherited the
descriptor keeps the lock, and it is found by what it has open.
"""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from dataclasses import dataclass

from ..engine.holders import find_holders
from ..instances.ledger import iter_entries
from ..instances.process import read_stat
from ..places import Places

# struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = struct.Struct("hhqqi4x")


@dataclass(frozen=True)
class Holder:
    """pid: the helper that serves the file. instance, label: of our ledger, where it is one of ours. is_alive: its owner runs."""

    pid: int
    instance: str | None
    label: str | None
    is_alive: bool

    def describe(self) -> str:
        """Say who it is, for a message."""
        if self.instance is None:
            return f"process {self.pid}, which this program did not start"
        who = f"the kernel of {self.label}" if self.label else "another kernel"
        return f"{who} (instance {self.instance}, process {self.pid})"


def is_locked(path: str, *, for_writing: bool) -> bool:
    """Ask the kernel whether a lock of this kind could be had now. Takes no lock.

    False also where the file system knows no such locks, or the file cannot be opened: the engine will say.
    """
    kind = fcntl.F_WRLCK if for_writing else fcntl.F_RDLCK
    with suppress(OSError), open(path, "r+b" if for_writing else "rb") as stream:
        answer = fcntl.fcntl(stream, fcntl.F_OFD_GETLK, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
    return False


def find_holder(path: str, places: Places) -> Holder | None:
    """Find the process that serves the overlay, if it is one that we may look at."""
    for found in find_holders(path):
        stat = read_stat(found.pid)
        for entry in iter_entries(places):
            if stat and entry.instance and entry.instance.starter.pid == stat.session:
                return Holder(found.pid, entry.name, entry.label, entry.owner.is_alive())
        return Holder(found.pid, None, None, True)
    return None
