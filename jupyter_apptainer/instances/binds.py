"""What a container sees of the host: folders and files that are mounted in it from file systems that the host has mounted too."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

from .mounts import Mount, find_place, iter_mounts

# Every container has these; they are the engine's business.
_ENGINES = ("/proc", "/sys", "/dev", "/etc", "/.singularity.d", "/var/spool")


@dataclass(frozen=True)
class Bind:
    """source: a path on the host. destination: in the container."""

    source: str
    destination: str
    is_read_only: bool


def list_binds(pid: int) -> tuple[Bind, ...]:
    """Return what the process sees of this host, by the path in its container; empty where its mounts cannot be read."""
    host = tuple(iter_mounts("self"))
    binds = {bind.destination: bind for bind in _iter_binds(iter_mounts(pid), host)}
    return tuple(binds[path] for path in sorted(binds))


def sees_folder(pid: int, path: str) -> bool:
    """Say whether `path`, which has no symbolic links, is the same folder for the process as for us."""
    place = find_place("self", path)
    return place is not None and place == find_place(pid, path)


def _iter_binds(mounts: Iterator[Mount], host: tuple[Mount, ...]) -> Iterator[Bind]:
    for mount in mounts:
        if mount.point == "/" or any(_is_below(mount.point, point) for point in _ENGINES):
            continue
        source = _find_source(mount, host)
        if source is not None:
            yield Bind(source, mount.point, mount.is_read_only)


def _find_source(mount: Mount, host: tuple[Mount, ...]) -> str | None:
    """Return where the host has mounted what is mounted there: by the largest part of its file system."""
    found = [each for each in host if each.device == mount.device and _is_below(mount.root, each.root)]
    if not found:
        return None
    nearest = min(found, key=lambda each: len(each.root))
    return posixpath.normpath(posixpath.join(nearest.point, posixpath.relpath(mount.root, nearest.root)))


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
