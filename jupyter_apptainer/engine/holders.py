"""Who has a file open: the answer to "currently in use by another process".

Only processes whose /proc/PID/fd we may read are seen: our own user's, or all of them as root.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_STARTER = re.compile(r"(?:Apptainer|Singularity) instance: .* \[(?P<name>[A-Za-z0-9._-]+)\]")


@dataclass(frozen=True)
class Holder:
    """A process that has the file open. `instance`: the name of the running instance that it serves, if any."""

    pid: int
    program: str
    instance: str | None

    def describe(self) -> str:
        """For people: what it is, and the command that ends it."""
        if self.instance:
            return (
                f"instance {self.instance} (process {self.pid}, {self.program}) uses it: "
                f"stop that, or run `apptainer instance stop {self.instance}`"
            )
        return f"process {self.pid} ({self.program}) has it open: `kill {self.pid}` if nothing of yours needs it"


def find_holders(path: str) -> tuple[Holder, ...]:
    """Return the processes that have the file at `path` open, by identity of the file and not by its name."""
    try:
        wanted = os.stat(path)
    except OSError:
        return ()
    identity = (wanted.st_dev, wanted.st_ino)
    return tuple(_describe_process(pid) for pid in _iter_pids() if _has_open(pid, identity))


def _iter_pids() -> Iterator[int]:
    own = os.getpid()
    return (int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != own)


def _has_open(pid: int, identity: tuple[int, int]) -> bool:
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    for descriptor in descriptors:
        try:
            status = os.stat(f"/proc/{pid}/fd/{descriptor}")
        except OSError:
            continue
        if (status.st_dev, status.st_ino) == identity:
            return True
    return False


def _describe_process(pid: int) -> Holder:
    status = _read(f"/proc/{pid}/status")
    name = re.search(r"^Name:\t(.*)$", status, re.MULTILINE)
    parent = re.search(r"^PPid:\t(\d+)$", status, re.MULTILINE)
    starter = _STARTER.match(_read(f"/proc/{parent.group(1)}/cmdline").replace("\0", " ")) if parent else None
    return Holder(
        pid=pid,
        program=name.group(1) if name else "a program",
        instance=starter.group("name") if starter else None,
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
