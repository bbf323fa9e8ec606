"""All processes of this host as they were at one moment, for who asks about many: one walk through /proc, however many questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from .process import ProcessIdentity, ProcessStat, iter_stats, read_namespace


class ProcessTable:
    """What one walk has found."""

    def __init__(self, stats: Iterable[ProcessStat]) -> None:
        self.stats: Mapping[int, ProcessStat] = {stat.pid: stat for stat in stats}
        self._children: dict[int, list[ProcessStat]] = defaultdict(list)
        self._sessions: dict[int, list[ProcessStat]] = defaultdict(list)
        for stat in self.stats.values():
            self._children[stat.ppid].append(stat)
            self._sessions[stat.session].append(stat)

    @classmethod
    def read(cls) -> ProcessTable:
        """Walk now."""
        return cls(iter_stats())

    def is_alive(self, process: ProcessIdentity) -> bool:
        """Say whether it ran; a zombie does not."""
        stat = self.stats.get(process.pid)
        return stat is not None and stat.start_ticks == process.start_ticks and stat.state not in "ZX"

    def find_descendants(self, pid: int) -> list[ProcessStat]:
        """Return the process's children, their children and so on."""
        found: list[ProcessStat] = []
        queue = [pid]
        while queue:
            below = self._children.get(queue.pop(), [])
            found += below
            queue += [stat.pid for stat in below]
        return found

    def list_session(self, leader: int) -> list[ProcessStat]:
        """Return the processes of a session, those with another parent by now as well."""
        return list(self._sessions.get(leader, ()))

    def group_by_namespace(self, namespaces: Iterable[int]) -> dict[int, list[ProcessStat]]:
        """Return the processes in each of these PID namespaces."""
        found: dict[int, list[ProcessStat]] = {each: [] for each in namespaces}
        for stat in self.stats.values() if found else ():
            namespace = read_namespace(stat.pid, "pid")
            if namespace in found:
                found[namespace].append(stat)
        return found
