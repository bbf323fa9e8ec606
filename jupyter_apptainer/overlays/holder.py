"""Who uses an overlay image right now, so that "in use by another process" can have a name.

The engine locks the file with fcntl(2) open file description locks, which belong to no pid; the FUSE helper that inherited the
descriptor keeps the lock, and it is found by what it has open.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ..engine.holders import find_holders
from ..errors import OverlayBusy
from ..instances.janitor import Leftover, end_leftover
from ..instances.ledger import iter_entries, load_entry
from ..instances.process import read_stat
from ..places import Places
from .ext3 import Ext3

# struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = struct.Struct("hhqqi4x")
# For a process that is ending: what it has written goes to the disk first.
_EXIT_S = 2.0
_PAUSE_S = 0.01
_NO_LOCKS_HERE = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})


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


def needs_check(path: str, ext3: Ext3 | None) -> bool:
    """Say whether an overlay was not closed properly. One that is mounted looks so too, even read-only: fuse2fs marks it."""
    return ext3 is not None and not ext3.is_clean and not is_locked(path, for_writing=os.access(path, os.W_OK))


def find_holder(path: str, places: Places) -> Holder | None:
    """Find the process that serves the overlay, if it is one that we may look at."""
    for found in find_holders(path):
        stat = read_stat(found.pid)
        for entry in iter_entries(places):
            if stat and entry.instance and entry.instance.starter.pid == stat.session:
                return Holder(found.pid, entry.name, entry.label, entry.owner.is_alive())
        return Holder(found.pid, None, None, True)
    return None


def free_overlay(path: str, places: Places, *, for_writing: bool) -> str | None:
    """See to it that the overlay can be locked: end an instance of ours that holds it and whose owner is gone.

    Returns a sentence about what was ended. Raises OverlayBusy, which names the holder, where somebody uses the overlay.
    """
    if os.path.isdir(path) or not is_locked(path, for_writing=for_writing):
        return None
    holder = find_holder(path, places)
    if holder is None and _wait_free(path, for_writing=for_writing):
        return None
    entry = load_entry(places, holder.instance) if holder and holder.instance and not holder.is_alive else None
    if entry and end_leftover(places, Leftover(entry, "its owner is gone", ())):
        return f"{path} was held by {entry.name}, whose owner is gone: ended"
    raise explain_busy(path, holder)


def _wait_free(path: str, *, for_writing: bool) -> bool:
    """A process that is on its way out has no files any more that anybody could see, and holds the lock until all are closed."""
    deadline = time.monotonic() + _EXIT_S
    while is_locked(path, for_writing=for_writing):
        if time.monotonic() > deadline:
            return False
        # There is nothing else to wait for: who asks for such a lock and waits cannot be given a limit.
        time.sleep(_PAUSE_S)
    return True


def explain_busy(path: str, holder: Holder | None) -> OverlayBusy:
    """Say who uses the overlay, and what can be done about it."""
    by = holder.describe() if holder else "a process that we may not look at, or one on another machine"
    name = shlex.quote(path)
    end = f"`jupyter apptainer instance stop {holder.instance}`" if holder and holder.instance else "end that"
    return OverlayBusy(
        f"the overlay {path} is in use by {by}",
        hint=f"wait until it is free, or end it: {end}; for two at a time, let both use it read-only (`{name}:ro`), "
        f"or give one a copy, made while it is free: `jupyter apptainer overlay create COPY --from {name}`",
    )


@contextmanager
def hold_overlay(path: str, places: Places, *, for_writing: bool) -> Iterator[None]:
    """Hold the engine's own lock on an overlay file for the length of the block, so that no kernel can start with it.

    Raises OverlayBusy. Where the file system knows no locks, nothing is held.
    """
    free_overlay(path, places, for_writing=for_writing)
    kind = fcntl.F_WRLCK if for_writing else fcntl.F_RDLCK
    with open(path, "r+b" if for_writing else "rb") as stream:
        try:
            fcntl.fcntl(stream, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))
        except BlockingIOError:
            raise explain_busy(path, find_holder(path, places)) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS_HERE:
                raise
        yield
