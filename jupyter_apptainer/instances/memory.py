"""How much memory processes have, for who looks again and again: read anew where it has changed.

The kernel walks all pages of a process to tell its proportional set size, which takes a millisecond or so for a Python. What a process has
mapped does not change without a page fault, which its entry in the process table counts: 50 idle kernels cost nothing to look at.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from .process import ProcessStat, read_memory
from .table import ProcessTable

# Its share of common pages changes as others come and go.
_KEPT_S = 300.0
# How many are read anew for that alone at one look, so that the looks stay quick.
_RENEWALS = 5


@dataclass(frozen=True)
class _Reading:
    stat: ProcessStat
    memory_bytes: int
    read_at: float

    def is_of(self, stat: ProcessStat) -> bool:
        own = self.stat
        return (own.start_ticks, own.faults, own.rss_pages) == (stat.start_ticks, stat.faults, stat.rss_pages)


class MemoryReader:
    """Remembers its readings. Safe to use from several threads, which wait for each other and then profit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[int, _Reading] = {}
        self._renewals_left = 0

    def measure(self, table: ProcessTable, groups: Iterable[Iterable[ProcessStat]]) -> list[int]:
        """Return the sum of the proportional set sizes in bytes of each group of processes of the table."""
        with self._lock:
            self._known = {pid: reading for pid, reading in self._known.items() if pid in table.stats}
            self._renewals_left = _RENEWALS
            return [sum(map(self._read, group)) for group in groups]

    def _read(self, stat: ProcessStat) -> int:
        reading = self._known.get(stat.pid)
        if reading is None or not reading.is_of(stat) or self._is_due(reading):
            reading = _Reading(stat, read_memory(stat.pid) or 0, time.monotonic())
            self._known[stat.pid] = reading
        return reading.memory_bytes

    def _is_due(self, reading: _Reading) -> bool:
        if self._renewals_left == 0 or time.monotonic() - reading.read_at < _KEPT_S:
            return False
        self._renewals_left -= 1
        return True
