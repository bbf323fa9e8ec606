"""Kernels as they run on this host now, whoever started them: from the ledger and /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from ..errors import InstanceNotFound
from ..instances.janitor import end_entry
from ..instances.joined import list_victims
from ..instances.lease import count_seconds_left, is_running
from ..instances.ledger import iter_entries, load_entry
from ..instances.memory import MemoryReader
from ..instances.model import LedgerEntry
from ..instances.process import ProcessStat
from ..instances.table import ProcessTable
from ..places import Places
from .plan import CONNECTION_FILE
from .shutdown import shut_down_by_server

# Fewer characters of an id are more likely a slip than a kernel.
_MIN_BEGINNING = 4
State = Literal["running", "waiting", "starting", "ended"]


@dataclass(frozen=True)
class RunningKernel:
    """One kernel.

    state: "waiting" for a new server, whose owner is gone; "ended": dead, but not removed yet. label: its notebook, else its display
    name. pid: of the kernel on the host. memory_bytes: its own, without the instance's. shared: NAME of the instance that it shares.
    lease_left_s: how long it may go on without an owner; None where it has one, or where there is no end. connection_file: for
    `jupyter console --existing`.
    """

    kernel_id: str
    state: State
    kernelspec: str
    label: str
    image: str
    instance: str
    is_shared: bool
    pid: int | None
    memory_bytes: int
    started_at: float
    owner_pid: int
    is_owner_alive: bool
    persist: bool | int
    lease_left_s: float | None
    connection_file: str


def iter_running(places: Places, memory: MemoryReader | None = None) -> Iterator[RunningKernel]:
    """Yield them, oldest first. memory: of who looks again and again."""
    return iter(describe_entries((entry for entry in iter_entries(places) if not entry.is_spare), memory))


def describe_entries(entries: Iterable[LedgerEntry], memory: MemoryReader | None = None) -> list[RunningKernel]:
    """Look at the kernels of these entries, all at one moment. memory: of who looks again and again."""
    rows = list(entries)
    if not rows:
        return []
    table = ProcessTable.read()
    sums = (memory or MemoryReader()).measure(table, (_list_processes(entry, table) for entry in rows))
    return [_describe(entry, table, memory_bytes) for entry, memory_bytes in zip(rows, sums, strict=True)]


def _describe(entry: LedgerEntry, table: ProcessTable, memory_bytes: int) -> RunningKernel:
    is_owner_alive = table.is_alive(entry.owner)
    return RunningKernel(
        kernel_id=entry.kernel_id,
        state=_find_state(entry, table, is_owner_alive),
        kernelspec=entry.kernelspec,
        label=entry.label,
        image=entry.image,
        instance=entry.instance_name,
        is_shared=bool(entry.shared),
        pid=entry.kernel.pid if entry.kernel and table.is_alive(entry.kernel) else None,
        memory_bytes=memory_bytes,
        started_at=entry.started_at,
        owner_pid=entry.owner.pid,
        is_owner_alive=is_owner_alive,
        persist=entry.persist,
        lease_left_s=None if is_owner_alive else count_seconds_left(entry, time.time()),
        connection_file=_find_connection_file(entry),
    )


def stop_running(places: Places, pattern: str) -> list[tuple[LedgerEntry, bool]]:
    """End kernels by the beginning of their id, or by id, instance or notebook with * and ?; returns whether each has ended.

    A Jupyter server that has one is asked to shut it down, so that it does not start it anew.
    Raises InstanceNotFound where none matches.
    """
    found = find_entries(places, pattern)
    if not found:
        raise InstanceNotFound(f"no kernel matches {pattern!r}", hint="`jupyter apptainer kernel ps` shows them")
    return [(entry, _stop(places, entry)) for entry in found]


def stop_overlay_users(places: Places, path: str) -> list[LedgerEntry]:
    """End the kernels that have mounted the overlay at `path` for writing; return those that have ended."""
    real = os.path.realpath(path)
    users = [entry for entry in iter_entries(places) if real in map(os.path.realpath, entry.overlays)]
    return [entry for entry in users if _stop(places, entry)]


def _stop(places: Places, entry: LedgerEntry) -> bool:
    if shut_down_by_server(entry) and load_entry(places, entry.name) is None:
        return True
    return end_entry(places, entry)


def find_entries(places: Places, pattern: str) -> list[LedgerEntry]:
    """Return the kernels that are meant: by the beginning of the id, or by id, instance or notebook with * and ?."""
    return [entry for entry in iter_entries(places) if _matches(entry, pattern)]


def _matches(entry: LedgerEntry, pattern: str) -> bool:
    names = (entry.kernel_id, entry.name, entry.instance_name, entry.label, os.path.basename(entry.label))
    is_beginning = len(pattern) >= _MIN_BEGINNING and entry.kernel_id.startswith(pattern)
    return is_beginning or any(fnmatchcase(name, pattern) for name in names if name)


def _find_state(entry: LedgerEntry, table: ProcessTable, is_owner_alive: bool) -> State:
    if not is_running(entry, table):
        return "starting" if entry.process is None and is_owner_alive else "ended"
    return "running" if is_owner_alive else "waiting"


def _list_processes(entry: LedgerEntry, table: ProcessTable) -> list[ProcessStat]:
    """Return the kernel and what it has started."""
    if entry.kernel is None or entry.instance is None or not table.is_alive(entry.kernel):
        return []
    return [table.stats[entry.kernel.pid], *list_victims(entry.kernel, entry.instance.pid_namespace, table)]


def _find_connection_file(entry: LedgerEntry) -> str:
    twin = os.path.join(entry.directories[0], CONNECTION_FILE) if entry.directories else ""
    return next((path for path in (entry.connection_file, twin) if path and os.path.exists(path)), "")
