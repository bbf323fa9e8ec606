"""Our instances as rows, for tables and programs: state, owner, and what each uses. One walk through /proc for all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from .model import LedgerEntry
from .process import iter_stats, read_cpu_seconds, read_memory, read_namespace


@dataclass(frozen=True, kw_only=True)
class InstanceRow:
    """state: running, starting, dead, or orphaned, where its owner is gone. memory_bytes, cpu_s: summed over its processes."""

    name: str
    instance: str
    state: str
    kernel_id: str
    label: str
    image: str
    started_at: float
    owner_pid: int
    init_pid: int | None
    processes: int
    memory_bytes: int
    cpu_s: float
    overlays: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """For programs."""
        return asdict(self) | {"overlays": list(self.overlays)}


def list_instances(entries: Iterable[LedgerEntry]) -> list[InstanceRow]:
    """Look at the instances of these entries."""
    rows = list(entries)
    running = {
        entry.instance.pid_namespace for entry in rows if entry.instance is not None and entry.instance.init.is_alive()
    }
    members: dict[int, list[int]] = defaultdict(list)
    for stat in iter_stats() if running else ():
        namespace = read_namespace(stat.pid, "pid")
        if namespace in running:
            members[namespace].append(stat.pid)
    return [_build_row(entry, members, running) for entry in rows]


def _build_row(entry: LedgerEntry, members: dict[int, list[int]], running: set[int]) -> InstanceRow:
    instance = entry.instance
    is_running = instance is not None and instance.pid_namespace in running
    pids = members[instance.pid_namespace] if instance is not None and is_running else []
    state = "running" if is_running else "starting" if instance is None else "dead"
    return InstanceRow(
        name=entry.name,
        instance=entry.instance_name,
        state=state if entry.owner.is_alive() else "orphaned",
        kernel_id=entry.kernel_id,
        label=entry.label,
        image=entry.image,
        started_at=entry.started_at,
        owner_pid=entry.owner.pid,
        init_pid=instance.init.pid if instance else None,
        processes=len(pids),
        memory_bytes=sum(read_memory(pid) or 0 for pid in pids),
        cpu_s=sum(read_cpu_seconds(pid) for pid in pids),
        overlays=tuple(entry.overlays),
    )
