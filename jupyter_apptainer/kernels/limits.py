"""Holds a kernel to its limits on memory and processes from outside, where or before Linux does.

No event tells that processes together have reached an amount of memory, unless they have a cgroup. So we look: the more room
there is, the more seldom, and never so often that it would cost more than `_SHARE` of a processor.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from ..engine.host.scope import find_cgroup_obstacle
from ..engine.locate import EngineInfo
from ..instances.process import ProcessIdentity
from ..instances.usage import ContainerProcesses, MemberUsage, count_tasks_outside, read_inner_pid
from .resources import UNKNOWN_HOST, WARN_AT, Host, ResourcePlan, format_size
from .wishes import UNLIMITED, ResourcesWish

# Memory is filled at some 6 GiB/s at most by one thread (measured with huge pages); programs that share the work are quicker.
_GROWTH_BYTES_PER_S = 8 << 30
_SHORTEST_S, _LONGEST_S = 0.05, 1.0
_SHARE = 0.1
# A warning is given again after so much was freed.
_REARM_AT = 0.8
_DYING_S = 5.0
_SPARE_BYTES = 1 << 30

Say = Callable[[str], None]


def look_at_host(wish: ResourcesWish, engine: EngineInfo, environ: Mapping[str, str]) -> Host:
    """Look at what limits can build on here; not at all where there is nothing to limit."""
    if wish == UNLIMITED:
        return UNKNOWN_HOST
    release = [int(number) for number in re.findall(r"\d+", platform.release())[:2]]
    return Host(
        processors=tuple(sorted(os.sched_getaffinity(0))),
        cgroup_obstacle=find_cgroup_obstacle(environ),
        # Linux counts tasks for each user namespace since 5.14, and spares root.
        counts_container_tasks=os.getuid() != 0 and not engine.setuid and release >= [5, 14],
    )


def has_memory_to_spare() -> bool:
    """Say whether this machine has memory for what only saves time."""
    with suppress(OSError), open("/proc/meminfo") as stream:
        for line in stream:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024 >= _SPARE_BYTES
    return True


@contextmanager
def running_on(processors: Sequence[int]) -> Iterator[None]:
    """Programs that are started meanwhile, by this thread, run on these processors only; empty: on all."""
    before = os.sched_getaffinity(0)
    # One of them may have been taken from us since they were chosen: then there is no limit, but a kernel.
    with suppress(OSError):
        os.sched_setaffinity(0, processors or before)
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, before)


def limit_tasks(kernel: ProcessIdentity, pids: int) -> None:
    """Give the kernel RLIMIT_NPROC; its children inherit it.

    Linux counts the tasks of the user namespace, in which the engine's own live as well: they are allowed for.
    """
    with suppress(ProcessLookupError, PermissionError):
        _, hard = resource.prlimit(kernel.pid, resource.RLIMIT_NPROC)
        soft = pids + count_tasks_outside(kernel)
        resource.prlimit(kernel.pid, resource.RLIMIT_NPROC, (soft if hard < 0 else min(soft, hard), hard))


class LimitWatch:
    """Looks at one kernel and what runs beside it. `say` gets what people should read.

    verdict: why the kernel itself was ended; empty while it was not.
    """

    def __init__(self, kernel: ProcessIdentity, plan: ResourcePlan, say: Say) -> None:
        self.verdict = ""
        self._processes = ContainerProcesses(kernel)
        self._kernel_pid = read_inner_pid(kernel)
        self._plan = plan
        self._say = say
        self._is_warned = False
        self._dying: dict[int, float] = {}
        # The last exact sum, and the upper bound at that time.
        self._exact = (0, 0)

    @property
    def is_needed(self) -> bool:
        """There is something to look at."""
        return self._plan.memory_bytes is not None or self._counts_pids

    @property
    def _counts_pids(self) -> bool:
        return self._plan.pids is not None and not self._plan.is_rlimit_used and not self._plan.is_cgroup_used

    def look(self) -> float:
        """Look once, act where a limit is passed, and return the seconds until the next look."""
        began = time.thread_time()
        members = self._processes.read()
        cost_s = time.thread_time() - began
        self._forget_gone(members)
        wait_s = _LONGEST_S
        if self._plan.memory_bytes is not None:
            wait_s = self._look_at_memory(members, self._plan.memory_bytes)
        if self._counts_pids:
            wait_s = min(wait_s, self._look_at_pids(members))
        # The exact sums are few, but take long: they may use half of the time.
        return max(wait_s, cost_s / _SHARE, time.thread_time() - began)

    def _forget_gone(self, members: Sequence[MemberUsage]) -> None:
        now, there = time.monotonic(), {member.pid for member in members}
        self._dying = {pid: at for pid, at in self._dying.items() if pid in there and now - at < _DYING_S}

    # --- memory

    def _look_at_memory(self, members: Sequence[MemberUsage], limit: int) -> float:
        used, members = self._measure(members, limit)
        if used >= limit:
            self._end_biggest(members, used, limit)
        elif used >= limit * WARN_AT and not self._is_warned:
            self._is_warned = True
            self._say(
                f"memory: {format_size(used)} of {format_size(limit)} in use, most of it by "
                f"{self._describe(_find_biggest(members))}; at the limit the biggest process is ended"
            )
        elif used < limit * _REARM_AT:
            self._is_warned = False
        room = max(0, limit - used)
        return min(max(room / _GROWTH_BYTES_PER_S, _SHORTEST_S), _LONGEST_S)

    def _measure(self, members: Sequence[MemberUsage], limit: int) -> tuple[int, Sequence[MemberUsage]]:
        """Return the memory in use, exact where that matters.

        Forks share pages, and the sum of their resident sets counts these again: an upper bound that is quick to have. Only
        where it is too high the exact sum is taken, and anew when the bound has moved by a quarter of the room that was left.
        """
        bound = sum(member.memory_bytes for member in members)
        if bound < limit * WARN_AT:
            self._exact = (0, 0)
            return bound, members
        exact, bound_then = self._exact
        if exact and abs(bound - bound_then) < (limit - exact) // 4:
            return exact, members
        members = self._processes.read_exactly()
        exact = sum(member.memory_bytes for member in members)
        self._exact = (exact, bound)
        return exact, members

    def _end_biggest(self, members: Sequence[MemberUsage], used: int, limit: int) -> None:
        if self._dying:
            return
        victim = _find_biggest(members)
        reason = f"out of memory at {format_size(used)}, limit {format_size(limit)}: {self._describe(victim)} was ended"
        if victim.pid == self._kernel_pid:
            # Before the signal: who sees the kernel's end asks for this.
            self.verdict = reason
        if not self._kill(victim):
            self.verdict = ""
        elif not self.verdict:
            self._say(f"{reason}, the kernel goes on")

    # --- processes

    def _look_at_pids(self, members: Sequence[MemberUsage]) -> float:
        limit = self._plan.pids or 0
        tasks = sum(member.tasks for member in members)
        over, ended = tasks, []
        for member in reversed(members):
            if over <= limit or member.pid in (1, self._kernel_pid):
                break
            if self._kill(member):
                ended.append(member)
            over -= member.tasks
        if ended:
            others = f" and {len(ended) - 1} more were" if len(ended) > 1 else " was"
            self._say(f"{tasks} processes and threads, limit {limit}: {self._describe(ended[0])}{others} ended")
        return _LONGEST_S / 4 if tasks > limit / 2 else _LONGEST_S

    # --- both

    def _kill(self, victim: MemberUsage) -> bool:
        self._dying[victim.pid] = time.monotonic()
        self._exact = (0, 0)
        return self._processes.kill(victim.pid)

    def _describe(self, member: MemberUsage) -> str:
        what = "the kernel" if member.pid == self._kernel_pid else member.name
        return f"{what} (pid {member.pid}, {format_size(member.memory_bytes)})"


def _find_biggest(members: Sequence[MemberUsage]) -> MemberUsage:
    """Process 1 holds the container together, and nothing else."""
    return max(members, key=lambda member: (member.pid != 1, member.memory_bytes))
