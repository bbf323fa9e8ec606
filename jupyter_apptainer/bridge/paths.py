"""Paths of the container as the host has them and the reverse, by the table of binds. Only words are compared: nothing is opened."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PathMap:
    """mounts: (path in the container, path on the host), in mount order: a later one lies on top. home: the same for the
    home folder, below all of them. cwd: of the kernel."""

    mounts: tuple[tuple[str, str], ...]
    home: tuple[str, str]
    cwd: str

    def find_host(self, path: str) -> str | None:
        """Return the host's path of a path in the container; None where it is the image's. Relative ones begin at `cwd`."""
        absolute = posixpath.normpath(posixpath.join(self.cwd, path))
        for inside, outside in (*reversed(self.mounts), self.home):
            found = _move(absolute, inside, outside)
            if found is not None:
                return found
        return None

    def is_visible(self, path: str) -> bool:
        """Say whether the container has the host's `path` under any name."""
        mounts = (*self.mounts, self.home)
        return any(_move(path, outside, inside) is not None for inside, outside in mounts)

    def to_json(self) -> dict[str, Any]:
        """For the worker."""
        return {"mounts": [list(pair) for pair in self.mounts], "home": list(self.home), "cwd": self.cwd}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> PathMap:
        """From the owner of the kernel."""
        mounts = tuple((str(inside), str(outside)) for inside, outside in record["mounts"])
        return cls(mounts, (str(record["home"][0]), str(record["home"][1])), str(record["cwd"]))


def _move(path: str, old: str, new: str) -> str | None:
    """Return `path` with the folder `new` in the place of `old`; None where it is not below that."""
    if old and (path == old or path.startswith(old.rstrip("/") + "/")):
        return posixpath.normpath(posixpath.join(new, posixpath.relpath(path, old)))
    return None
