"""How long a kernel may live without its owner: not at all, for a time, or until somebody ends it.

An owner (a server, a script) that is gone leaves its entries in the ledger. What does not persist is ended at once, by the owner's
keeper or, where that was killed too, by the next start of any kernel. What persists can be claimed by a new owner.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

from ..engine.lock import hold_lock
from ..places import Places
from . import ledger
from .model import LedgerEntry
from .process import ProcessIdentity
from .table import ProcessTable

_LOCK = "claims.lock"


def claim(places: Places, name: str) -> LedgerEntry | None:
    """Make this process the owner of an entry whose owner is gone; None where the entry is gone or somebody was quicker."""
    with hold_lock(places.ledger / _LOCK):
        entry = ledger.load_entry(places, name)
        if entry is None or entry.owner.is_alive():
            return None
        claimed = replace(entry, owner=ProcessIdentity.current(), orphaned_at=None, keeper=None)
        ledger.save_entry(places, claimed)
    wake_keeper(entry)
    return claimed


def wake_keeper(entry: LedgerEntry) -> None:
    """Have the keeper of an owner that is gone look again: it may be waiting for the time of a kernel that is not its business any more."""
    if entry.keeper is not None and not entry.owner.is_alive() and entry.keeper.pid != os.getppid():
        entry.keeper.send_signal(signal.SIGTERM)


def note_orphan(places: Places, entry: LedgerEntry) -> LedgerEntry:
    """Record that the owner was found gone, from when on the lease counts; returns the entry as it is now."""
    if entry.orphaned_at is not None:
        return entry
    with hold_lock(places.ledger / _LOCK):
        current = ledger.load_entry(places, entry.name)
        if current is None or current.owner != entry.owner or current.orphaned_at is not None:
            return current or entry
        noted = replace(current, orphaned_at=time.time())
        ledger.save_entry(places, noted)
        return noted


def find_end(entry: LedgerEntry, now: float) -> str | None:
    """Return why an entry without an owner has to go, or None where its lease goes on."""
    gone = f"its owner (pid {entry.owner.pid}) is gone"
    if entry.persist is False:
        return gone
    if not is_running(entry):
        return f"{gone}, and its kernel has ended"
    left = count_seconds_left(entry, now)
    return f"{gone}, and its lease is over" if left is not None and left <= 0 else None


def is_running(entry: LedgerEntry, table: ProcessTable | None = None) -> bool:
    """Say whether there is a kernel that somebody could connect to. table: where to look, by default as it is now."""
    if entry.instance is None or entry.process is None:
        return False
    processes = (entry.instance.init, entry.process)
    return all(table.is_alive(each) if table else each.is_alive() for each in processes)


def count_seconds_left(entry: LedgerEntry, now: float) -> float | None:
    """Return for how long an entry without an owner may go on; None where there is no end."""
    if entry.persist is True:
        return None
    return (entry.orphaned_at or now) + int(entry.persist) - now


def can_be_claimed(entry: LedgerEntry) -> bool:
    """Say whether the kernel waits for a new owner."""
    return not entry.owner.is_alive() and find_end(entry, time.time()) is None


def find_next_end(places: Places) -> float | None:
    """Return in how many seconds the next lease without an owner ends, or None."""
    now = time.time()
    ends = [count_seconds_left(entry, now) for entry in ledger.iter_entries(places) if not entry.owner.is_alive()]
    return min((end for end in ends if end is not None), default=None)
