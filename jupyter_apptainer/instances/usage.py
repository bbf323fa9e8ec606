"""What the processes in a container use right now, read cheaply enough to look often.

Everything is read in the container's own /proc, which shows the processes of its PID namespace and no others, by the pids that
they have inside. So a look costs the same on a machine with ten processes and on one with ten thousand.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .process import ProcessIdentity, iter_stats, read_namespace

# What a program has filled with data. Pages of files are left out: Linux takes them back when it needs room.
_HELD = ("RssAnon", "RssShmem")
_HELD_EXACTLY = ("Pss_Anon", "Pss_Shmem")
_DYING = "ZX"


@dataclass(frozen=True)
class MemberUsage:
    """One process. pid: inside the container. tasks: itself and its threads. memory_bytes: what it has filled with data."""

    pid: int
    name: str
    tasks: int
    memory_bytes: int


class ContainerProcesses:
    """The processes in the PID namespace of `process`, a process on the host that lives in the container."""

    def __init__(self, process: ProcessIdentity) -> None:
        self._process = process
        self._folder = Path(f"/proc/{process.pid}/root/proc")

    def read(self) -> tuple[MemberUsage, ...]:
        """Return all of them, by pid; empty where the container is gone.

        memory_bytes is the resident set, so what a fork shares with its parent counts twice: the sum is an upper bound.
        """
        return tuple(sorted(self._iter_members(), key=lambda member: member.pid))

    def read_exactly(self) -> tuple[MemberUsage, ...]:
        """The same with proportional sets: shared pages are divided, the sum is exact. Walks page tables, so it takes longer."""
        return tuple(
            MemberUsage(member.pid, member.name, member.tasks, self._read_proportional(member))
            for member in self.read()
        )

    def kill(self, pid: int) -> bool:
        """End one of them, named by its pid inside; False where it is gone."""
        try:
            # A descriptor of its folder in /proc is this process and never another (pidfd_send_signal(2)).
            descriptor = os.open(self._folder / str(pid), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _iter_members(self) -> Iterator[MemberUsage]:
        try:
            names = os.listdir(self._folder)
        except OSError:
            return
        if not self._process.is_alive():
            return
        for name in names:
            if name.isdigit():
                with suppress(OSError):
                    fields = _parse_fields((self._folder / name / "status").read_bytes())
                    if fields["State"][:1] not in _DYING:
                        held = sum(_to_bytes(fields.get(field, "")) for field in _HELD)
                        yield MemberUsage(int(name), fields["Name"], int(fields["Threads"]), held)

    def _read_proportional(self, member: MemberUsage) -> int:
        try:
            fields = _parse_fields((self._folder / str(member.pid) / "smaps_rollup").read_bytes())
        except OSError:
            return 0
        if _HELD_EXACTLY[0] not in fields:
            # Before Linux 5.4 there is only the whole.
            return _to_bytes(fields.get("Pss", ""))
        return sum(_to_bytes(fields.get(field, "")) for field in _HELD_EXACTLY)


def read_inner_pid(process: ProcessIdentity) -> int | None:
    """Return the pid that a process has in its own PID namespace."""
    try:
        fields = _parse_fields(Path(f"/proc/{process.pid}/status").read_bytes())
    except OSError:
        return None
    return int(fields["NSpid"].split()[-1]) if "NSpid" in fields else None


def count_tasks_outside(process: ProcessIdentity) -> int:
    """Count the tasks that share the user namespace of `process`, but not its PID namespace: the engine's own."""
    user, inside = read_namespace(process.pid, "user"), read_namespace(process.pid, "pid")
    count = 0
    for stat in iter_stats():
        if read_namespace(stat.pid, "user") == user and read_namespace(stat.pid, "pid") != inside:
            with suppress(OSError):
                count += len(os.listdir(f"/proc/{stat.pid}/task"))
    return count


def _parse_fields(raw: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in raw.decode("utf-8", "replace").splitlines())
    return {name: value.strip() for name, _, value in lines}


def _to_bytes(value: str) -> int:
    number = value.removesuffix(" kB")
    return int(number) * 1024 if number.isdigit() else 0
