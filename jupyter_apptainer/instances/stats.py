"""What an instance uses, summed over its PID namespace. Works without cgroups, which `instance stats` needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .model import Instance
from .process import ProcessStat, iter_stats, read_cpu_seconds, read_memory, read_namespace


@dataclass(frozen=True)
class InstanceStats:
    """processes: number of them, init included. memory_bytes: their proportional set size. cpu_s: processor time so far."""

    processes: int
    memory_bytes: int
    cpu_s: float


def iter_members(instance: Instance) -> list[ProcessStat]:
    """Return the processes in the instance's PID namespace, wherever in the process tree they hang.

    A program started by `exec instance://` is no child of init, so the tree does not tell; the namespace does.
    """
    return [stat for stat in iter_stats() if read_namespace(stat.pid, "pid") == instance.pid_namespace]


def read_stats(instance: Instance) -> InstanceStats:
    """Measure now. Processes that end meanwhile count as nothing."""
    return _sum(iter_members(instance))


def read_all_stats(instances: Iterable[Instance]) -> list[InstanceStats]:
    """Measure several of them, with one look at all processes."""
    wanted = list(instances)
    members: dict[int, list[ProcessStat]] = {instance.pid_namespace: [] for instance in wanted}
    for stat in iter_stats() if wanted else ():
        members.get(read_namespace(stat.pid, "pid") or 0, []).append(stat)
    return [_sum(members[instance.pid_namespace]) for instance in wanted]


def _sum(members: Sequence[ProcessStat]) -> InstanceStats:
    return InstanceStats(
        processes=len(members),
        memory_bytes=sum(read_memory(stat.pid) or 0 for stat in members),
        cpu_s=sum(read_cpu_seconds(stat.pid) for stat in members),
    )
