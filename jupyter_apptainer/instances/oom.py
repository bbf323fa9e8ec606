"""Linux' own out-of-memory killer: its counters, as evidence when a process was killed and nobody says by whom.

The limit may be that of a batch job, of a login session, of a container around us, or the memory of the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")
_COUNTER = "oom_kill"


@dataclass(frozen=True)
class OomRecord:
    """How many processes Linux has ended for want of memory, when this was noted.

    cgroup: the counter's file of the cgroup in which the process lived, None where there is none to read; then the counter is
    the machine's.
    """

    path: Path
    cgroup: str | None
    count: int

    @classmethod
    def note(cls, pid: int, *, root: Path = _ROOT) -> OomRecord:
        """Note the count that a kill of the process `pid` will raise (cgroups(7), memory.events and memory.oom_control)."""
        for path, cgroup in _iter_counters(pid, root):
            count = _read_count(path)
            if count is not None:
                return cls(path, cgroup, count)
        path = root / "proc/vmstat"
        return cls(path, None, _read_count(path) or 0)

    def explain(self) -> str:
        """Say what has been counted since; empty for nothing."""
        count = _read_count(self.path)
        if count is None or count <= self.count:
            return ""
        if self.cgroup is not None:
            return f"Linux' out-of-memory killer was at work in its cgroup, {self.cgroup}"
        return "Linux' out-of-memory killer was at work on this machine"


def _iter_counters(pid: int, root: Path) -> Iterator[tuple[Path, str]]:
    with suppress(OSError):
        for line in (root / f"proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, cgroup = line.split(":", 2)
            below = cgroup.strip("/")
            if "memory" in controllers.split(","):
                yield root / "sys/fs/cgroup/memory" / below / "memory.oom_control", cgroup
            elif not controllers:
                yield root / "sys/fs/cgroup" / below / "memory.events", cgroup


def _read_count(path: Path) -> int | None:
    with suppress(OSError):
        for line in path.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == _COUNTER and count.strip().isdigit():
                return int(count)
    return None
