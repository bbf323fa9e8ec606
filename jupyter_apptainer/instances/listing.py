"""Our instances as rows, for tables and programs: state, owner, and what each uses. One walk through /proc for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from .memory import MemoryReader
from .model import LedgerEntry
from .process import ProcessStat
from .table import ProcessTable


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


def list_instances(entries: Iterable[LedgerEntry], memory: MemoryReader | None = None) -> list[InstanceRow]:
    """Look at the instances of these entries. memory: of who looks again and again."""
    rows = list(entries)
    if not rows:
        return []
    table = ProcessTable.read()
    running = {
        entry.instance.pid_namespace
        for entry in rows
        if entry.instance is not None and table.is_alive(entry.instance.init)
    }
    members = table.group_by_namespace(running)
    groups = [_find_own(entry, members) for entry in rows]
    sums = (memory or MemoryReader()).measure(table, (own or () for own in groups))
    return [_build_row(*each, table) for each in zip(rows, groups, sums, strict=True)]


def _find_own(entry: LedgerEntry, members: Mapping[int, Sequence[ProcessStat]]) -> Sequence[ProcessStat] | None:
    """Return the processes in an instance; None where it does not run."""
    return members.get(entry.instance.pid_namespace) if entry.instance is not None else None


def _build_row(
    entry: LedgerEntry, own: Sequence[ProcessStat] | None, memory_bytes: int, table: ProcessTable
) -> InstanceRow:
    instance = entry.instance
    state = "running" if own is not None else "starting" if instance is None else "dead"
    return InstanceRow(
        name=entry.name,
        instance=entry.instance_name,
        state=state if table.is_alive(entry.owner) else "orphaned",
        kernel_id=entry.kernel_id,
        label=entry.label,
        image=entry.image,
        started_at=entry.started_at,
        owner_pid=entry.owner.pid,
        init_pid=instance.init.pid if instance else None,
        processes=len(own or ()),
        memory_bytes=memory_bytes,
        cpu_s=sum(stat.cpu_s for stat in own or ()),
        overlays=tuple(entry.overlays),
    )
