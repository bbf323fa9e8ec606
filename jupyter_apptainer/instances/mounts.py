"""What a path is for a process: file system and path in it, by the process's own table of mounts.

Looking through /proc/PID/root would be shorter, but a FUSE file system at the container's root lets nobody from outside in.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Space, tab, line break and backslash are written as octal numbers (proc_pid_mountinfo(5)).
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Place:
    """device: major:minor of a file system. path: in it."""

    device: str
    path: str


@dataclass(frozen=True)
class Mount:
    """One line of a process's table of mounts. root: the part of the file system that is mounted. point: where."""

    device: str
    root: str
    point: str
    is_read_only: bool


def iter_mounts(pid: int | str) -> Iterator[Mount]:
    """Yield them in their order; none where they cannot be read."""
    try:
        lines = Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape").split("\n")[:-1]
    except OSError:
        return
    for line in lines:
        _, _, device, root, point, options = (_decode(word) for word in line.split(" ", 6)[:6])
        yield Mount(device, root, point, "ro" in options.split(","))


def find_place(pid: int | str, path: str) -> Place | None:
    """Return what `path`, which has no symbolic links, is for the process; None where its mounts cannot be read."""
    found: Place | None = None
    longest = -1
    for mount in iter_mounts(pid):
        # A later mount at the same point lies on top of an earlier one.
        if _is_within(path, mount.point) and len(mount.point) >= longest:
            longest = len(mount.point)
            below = posixpath.relpath(path, mount.point)
            found = Place(mount.device, posixpath.normpath(posixpath.join(mount.root, below)))
    return found


def is_seen(pid: int | str, source: str, destination: str) -> bool:
    """Say whether what is at `destination` for the process is the host's `source`."""
    inside = find_place(pid, destination)
    return inside is not None and inside == find_place("self", os.path.realpath(source))


def _is_within(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def _decode(word: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), word)
