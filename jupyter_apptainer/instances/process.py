"""Processes of this host as /proc shows them.

A pid alone names nobody: the kernel gives it to the next process. Everything here that ends a process or waits for one
takes a `ProcessIdentity`, pid and start time together, and works through a pidfd where the kernel has them (Linux 5.3).
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# Only used where the kernel has no pidfds: how long to sleep between two looks at /proc.
_POLL_S = 0.005
# One line of about 50 numbers, and a name of at most 64 bytes.
_STAT_BYTES = 4096
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
Namespace = Literal["mnt", "pid", "user"]


@dataclass(frozen=True)
class ProcessStat:
    """The fields of /proc/PID/stat (proc(5)) that we use. `start_ticks` counts clock ticks since boot, `faults` those of pages.

    cpu_s: user and system time. rss_pages: the resident set, roughly.
    """

    pid: int
    comm: str
    state: str
    ppid: int
    pgid: int
    session: int
    start_ticks: int
    cpu_s: float
    faults: int
    rss_pages: int


@dataclass(frozen=True)
class ProcessIdentity:
    """One process, for ever: a later process with the same pid has another start time."""

    pid: int
    start_ticks: int

    @classmethod
    def find(cls, pid: int) -> ProcessIdentity | None:
        """Identify the process that has `pid` now, if any."""
        stat = read_stat(pid)
        return cls(pid, stat.start_ticks) if stat else None

    @classmethod
    def current(cls) -> ProcessIdentity:
        """Identify this process."""
        found = cls.find(os.getpid())
        assert found is not None
        return found

    def is_alive(self) -> bool:
        """Say whether it runs. A zombie does not: where PID 1 never reaps, it stays in the table for ever."""
        stat = read_stat(self.pid)
        return stat is not None and stat.start_ticks == self.start_ticks and stat.state not in "ZX"

    def send_signal(self, signum: int) -> bool:
        """Send a signal to exactly this process; False where it is gone already."""
        with suppress(ProcessLookupError):
            if hasattr(signal, "pidfd_send_signal"):
                with suppress(PermissionError, OSError):
                    descriptor = os.pidfd_open(self.pid)
                    try:
                        if not self.is_alive():
                            return False
                        signal.pidfd_send_signal(descriptor, signum)
                        return True
                    finally:
                        os.close(descriptor)
            if self.is_alive():
                os.kill(self.pid, signum)
                return True
        return False

    def wait_gone(self, timeout_s: float) -> bool:
        """Wait until it no longer runs (a zombie counts as gone); False where it still does after `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        except (AttributeError, OSError):
            while self.is_alive():
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_POLL_S)
            return True
        try:
            if not self.is_alive():
                return True
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            return bool(poller.poll(max(0.0, timeout_s) * 1000))
        finally:
            os.close(descriptor)

    def to_json(self) -> dict[str, int]:
        """For the ledger."""
        return {"pid": self.pid, "start_ticks": self.start_ticks}

    @classmethod
    def from_json(cls, record: dict[str, int]) -> ProcessIdentity:
        """From the ledger."""
        return cls(int(record["pid"]), int(record["start_ticks"]))


def read_stat(pid: int) -> ProcessStat | None:
    """Read /proc/PID/stat, or return None where there is no such process."""
    found = _read_fields(pid)
    if found is None:
        return None
    comm, fields = found
    return ProcessStat(
        pid=pid,
        comm=comm,
        state=fields[0],
        ppid=int(fields[1]),
        pgid=int(fields[2]),
        session=int(fields[3]),
        start_ticks=int(fields[19]),
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
        faults=int(fields[7]) + int(fields[9]),
        rss_pages=int(fields[21]),
    )


def _read_fields(pid: int) -> tuple[str, list[str]] | None:
    """Read /proc/PID/stat: the program's name, and the fields behind it, the first of which is the state."""
    try:
        # Not by pathlib: this is done for each process of a host, of which there may be thousands.
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        raw = os.read(descriptor, _STAT_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    finally:
        os.close(descriptor)
    # The name is in parentheses and may itself hold spaces and parentheses, so the last one counts.
    name_end = raw.rindex(")")
    return raw[raw.index("(") + 1 : name_end], raw[name_end + 2 :].split()


def read_exit_status(process: ProcessIdentity) -> int | None:
    """Return how a process of this user's has ended, as `Popen.returncode` says it; None where it runs, or somebody has reaped it."""
    found = _read_fields(process.pid)
    if found is None:
        return None
    _, fields = found
    if fields[0] != "Z" or int(fields[19]) != process.start_ticks:
        return None
    # The last of the fields, as waitpid(2) has it.
    return os.waitstatus_to_exitcode(int(fields[49]))


def iter_stats() -> Iterator[ProcessStat]:
    """Yield every process that /proc shows us."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            stat = read_stat(int(entry))
            if stat:
                yield stat


def read_namespace(pid: int, kind: Namespace) -> int | None:
    """Return the inode number of one of the process's namespaces; None where it is gone or not ours to see."""
    try:
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except OSError:
        return None


def read_command_line(pid: int) -> str:
    """Return the process's command line with spaces between the words; empty for the gone and for kernel threads."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def read_children(pid: int) -> list[int]:
    """Return the pids of the process's children, in the order of their start."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(word) for word in path.read_text().split()]
    return sorted(found)


def read_memory(pid: int) -> int | None:
    """Return the proportional set size in bytes (shared pages divided among their users), or None where it can't be read."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def read_cpu_seconds(pid: int) -> float:
    """Return user and system time used by the process so far, in seconds; 0 for the gone."""
    stat = read_stat(pid)
    return stat.cpu_s if stat else 0.0
