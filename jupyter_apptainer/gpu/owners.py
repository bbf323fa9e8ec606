"""Whose a process on a GPU is: process id, PID namespace, instance, kernel, notebook.

The namespace decides, never the tree of processes: what joins an instance is no child of it. A kernel on the host is known by what
its Jupyter server has put into its environment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..instances.lease import find_end
from ..instances.ledger import iter_entries
from ..instances.model import LedgerEntry
from ..instances.process import read_namespace, read_stat
from ..places import Places
from .model import Owner
from .process import ProcessFacts, read_facts


@dataclass(frozen=True)
class Ownership:
    """The answer for one process; the words are those of `Holder`."""

    owner: Owner
    label: str
    user: str
    instance: str = ""
    kernel_id: str = ""
    reason: str = ""


class OwnerFinder:
    """Finds owners, look after look. What was learned about a process is kept as long as it uses a device."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._known: dict[int, ProcessFacts] = {}

    def find(self, pids: Iterable[int]) -> dict[int, Ownership]:
        """Return the owner of each process."""
        self._known = {pid: self._look_up(pid) for pid in pids}
        if not self._known:
            return {}
        entries = _group_by_namespace(iter_entries(self._places))
        return {
            pid: judge(facts, entries.get(facts.pid_namespace or -1, ())) for pid, facts in sorted(self._known.items())
        }

    def _look_up(self, pid: int) -> ProcessFacts:
        known = self._known.get(pid)
        stat = read_stat(pid)
        if known and known.identity and stat and stat.start_ticks == known.identity.start_ticks:
            return known
        return read_facts(pid)


def judge(facts: ProcessFacts, entries: Sequence[LedgerEntry]) -> Ownership:
    """Decide. entries: of the kernels whose instance the process runs in."""
    if entries:
        return _judge_member(facts, entries)
    if facts.uid != os.getuid():
        return Ownership("other", facts.program or "a process that is not seen from here", facts.user)
    if facts.instance:
        return Ownership("instance", facts.instance, facts.user, facts.instance)
    if facts.server_pid is not None and facts.pid_namespace == read_namespace(os.getpid(), "pid"):
        reason = _find_missing_server(facts, facts.server_pid)
        label = facts.notebook or facts.program
        return Ownership("orphan" if reason else "notebook", label, facts.user, reason=reason)
    return Ownership("own", facts.program, facts.user)


def find_entry(facts: ProcessFacts, entries: Sequence[LedgerEntry]) -> LedgerEntry | None:
    """Return the entry of the kernel that started the process; None where several share the instance and none of them did."""
    if len(entries) == 1:
        return entries[0]
    by_kernel = {entry.kernel.pid: entry for entry in entries if entry.kernel}
    if facts.session in by_kernel:
        return by_kernel[facts.session]
    pid = facts.pid
    while pid > 1 and pid not in by_kernel:
        stat = read_stat(pid)
        pid = stat.ppid if stat else 0
    return by_kernel.get(pid)


def _judge_member(facts: ProcessFacts, entries: Sequence[LedgerEntry]) -> Ownership:
    name = entries[0].instance_name
    entry = find_entry(facts, entries)
    if entry is None:
        return Ownership("instance", name, facts.user, name)
    reason = _find_end(entry)
    if not reason and entry.kernel is not None and not entry.kernel.is_alive():
        reason = "the kernel that started it has ended"
    label = entry.label or name
    return Ownership("orphan" if reason else "notebook", label, facts.user, name, entry.kernel_id, reason)


def _find_end(entry: LedgerEntry) -> str:
    return "" if entry.owner.is_alive() else find_end(entry, time.time()) or ""


def _find_missing_server(facts: ProcessFacts, server_pid: int) -> str:
    """A server is older than its kernels: a younger process only has its number."""
    server = read_stat(server_pid)
    is_there = server is not None and server.state not in "ZX"
    if server and is_there and facts.identity and server.start_ticks <= facts.identity.start_ticks:
        return ""
    return f"its Jupyter server (pid {server_pid}) is gone"


def _group_by_namespace(entries: Iterable[LedgerEntry]) -> Mapping[int, tuple[LedgerEntry, ...]]:
    grouped: dict[int, tuple[LedgerEntry, ...]] = {}
    for entry in entries:
        # The number of a namespace is given away again once its last process, of which init is one, has ended.
        if entry.instance and entry.instance.init.is_alive():
            number = entry.instance.pid_namespace
            grouped[number] = (*grouped.get(number, ()), entry)
    return grouped
