"""Limits of a kernel: in which way each of them will hold on this machine. Pure; `explain` shows the result.

Processors are chosen by affinity, with a cgroup too: numpy, torch and OpenMP count those that they may run on, and a quota
alone would make them start a thread for each processor of the machine. `limits` sees to memory and processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .wishes import UNLIMITED, ResourcesWish

WARN_AT = 0.9


@dataclass(frozen=True)
class Host:
    """What the plan has to know of this machine.

    processors: those that the server may use. cgroup_obstacle: why the engine cannot use cgroups; empty where it can.
    counts_container_tasks: RLIMIT_NPROC is obeyed, and counts the tasks of one container and not all of the user's.
    """

    processors: tuple[int, ...] = ()
    cgroup_obstacle: str = "not looked for"
    counts_container_tasks: bool = False


@dataclass(frozen=True)
class ResourcePlan:
    """What will hold a kernel back. None and empty: nothing.

    processors: those that the kernel may run on. is_cgroup_used: the engine is asked for a cgroup with these limits.
    is_rlimit_used: the kernel gets RLIMIT_NPROC. notes: a line for each limit, for people.
    """

    memory_bytes: int | None = None
    pids: int | None = None
    cpus: float | None = None
    processors: tuple[int, ...] = ()
    is_cgroup_used: bool = False
    is_rlimit_used: bool = False
    notes: tuple[str, ...] = ()


UNKNOWN_HOST = Host()
NO_LIMITS = ResourcePlan()


def plan_resources(wish: ResourcesWish, host: Host, seed: str) -> ResourcePlan:
    """Choose the way for each limit. seed: what tells this kernel from others, for the choice of processors."""
    if wish == UNLIMITED:
        return NO_LIMITS
    is_cgroup_used = not host.cgroup_obstacle
    processors = choose_processors(host.processors, wish.cpus, seed)
    is_rlimit_used = wish.pids is not None and not is_cgroup_used and host.counts_container_tasks
    return ResourcePlan(
        memory_bytes=wish.memory_bytes,
        pids=wish.pids,
        cpus=wish.cpus,
        processors=processors,
        is_cgroup_used=is_cgroup_used,
        is_rlimit_used=is_rlimit_used,
        notes=tuple(_iter_notes(wish, host, processors, is_rlimit_used=is_rlimit_used)),
    )


def choose_processors(available: Sequence[int], cpus: float | None, seed: str) -> tuple[int, ...]:
    """Choose whole processors for `cpus`; empty where that is no restriction.

    Neighbours, since they share caches. Which of them depends on the seed, so that kernels do not all sit on the first ones.
    """
    if cpus is None or math.ceil(cpus) >= len(available):
        return ()
    count = math.ceil(cpus)
    first = sum(seed.encode()) % (len(available) // count) * count
    return tuple(available[first : first + count])


def format_size(size_bytes: int) -> str:
    """Return a size for people: `4 GiB`, `3.6 GiB`, `512 MiB`."""
    for shift, unit in ((40, "TiB"), (30, "GiB")):
        if size_bytes >= 1 << shift:
            return f"{size_bytes / (1 << shift):.1f}".removesuffix(".0") + f" {unit}"
    return f"{size_bytes / (1 << 20):.0f} MiB"


def _iter_notes(wish: ResourcesWish, host: Host, processors: Sequence[int], *, is_rlimit_used: bool) -> Iterator[str]:
    obstacle = host.cgroup_obstacle
    if obstacle:
        yield f"no cgroup for this kernel: {obstacle}"
    else:
        yield "a cgroup with these limits, which Linux sees to"
    if wish.memory_bytes is not None:
        warning = format_size(int(wish.memory_bytes * WARN_AT))
        yield (
            f"memory {format_size(wish.memory_bytes)}: watched from outside; a warning at {warning}, "
            "and at the limit the biggest process is ended"
        )
    if wish.cpus is not None:
        where = f"processors {','.join(map(str, processors))}" if processors else "this machine has no more"
        yield f"cpus {wish.cpus:g}: {where}"
    if wish.pids is not None and is_rlimit_used:
        yield f"pids {wish.pids}: RLIMIT_NPROC of the kernel; threads count"
    elif wish.pids is not None and obstacle:
        yield f"pids {wish.pids}: counted from outside, and the youngest process is ended; threads count"
    elif wish.pids is not None:
        yield f"pids {wish.pids}: in the cgroup; threads count"
