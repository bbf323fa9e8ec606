"""The folder of all layers: found by their keys, kept whole or not at all, removed when they are too many.

A layer is a folder KEY with `tree` (what the step has changed), `about.json` and what else the step has left. It is made under
another name and renamed when it is whole. Who uses one holds a shared lock on its `about.json`, who makes one an exclusive lock
on its `lock`; so what nobody holds may go, whatever became of the process. How old a layer is, the time of its `about.json` says.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...places import Places, make_private_dir
from ..starter import remove_build_folder

_KEY_DIGITS = 20
_NEW, _TRASH = ".new-", ".old-"
_REMOVED_WITHIN_S = 60.0


@dataclass(frozen=True)
class About:
    """What is known of a layer. title: the step in words. depth: how many are below it. is_whole: nothing below is needed.

    lower: the folders of all that it needs, the uppermost first. linked: the names of each file that has several, here or below.
    """

    title: str
    depth: int
    size_bytes: int
    is_whole: bool
    lower: tuple[str, ...]
    linked: tuple[tuple[str, ...], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Layer:
    """One that is there. used_at: seconds since 1970."""

    key: str
    path: Path
    about: About
    used_at: float

    @property
    def is_kept(self) -> bool:
        """Whether later builds will find it."""
        return not self.key.startswith(_NEW)

    @property
    def stack(self) -> tuple[str, ...]:
        """The folders that make up the whole, below the store, the uppermost first."""
        return tuple(f"{name}/tree" for name in self.folders)

    @property
    def folders(self) -> tuple[str, ...]:
        """The names of the layers that make up the whole, the uppermost first."""
        below = () if self.about.is_whole else self.about.lower
        return (self.key, *(name.partition("/")[0] for name in below))


class Held:
    """Layers that a build uses, and those that it makes, until `release`."""

    def __init__(self) -> None:
        self._descriptors: dict[Path, int] = {}

    def has(self, path: Path) -> bool:
        """Say whether the folder `path` is held already."""
        return path in self._descriptors

    def add(self, path: Path, descriptor: int) -> None:
        """Hold the folder `path` by a lock."""
        self._descriptors[path] = descriptor

    def release(self) -> None:
        """Hold none of them any more. They were used at one time: else the first would be the oldest, though all need it."""
        now = time.time()
        while self._descriptors:
            _, descriptor = self._descriptors.popitem()
            os.utime(descriptor, (now, now))
            os.close(descriptor)


class Store:
    """The layers of one user on one host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make the folder, and remove what builds have left that were killed."""
        make_private_dir(self.folder)
        self.remove_leftovers()

    def find(self, key: str, held: Held) -> Layer | None:
        """Return the layer with this key, and hold it and all that it needs; None where something of that is not there."""
        layer = self._load(self.folder / key)
        if layer is None:
            return None
        needed = [self.folder / name for name in layer.folders]
        return layer if all(_hold(path, held) for path in needed) else None

    def begin(self, held: Held) -> Path:
        """Make the folder of a layer that is going to be made, and hold it."""
        while True:
            path = self.folder / f"{_NEW}{secrets.token_hex(6)}"
            path.mkdir(mode=0o700)
            descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_same(descriptor, path / "lock"):
                held.add(path, descriptor)
                return path
            # Between the last two steps somebody took it for a leftover.
            os.close(descriptor)

    def keep(self, key: str, path: Path, about: About, held: Held, *, is_shared: bool = True) -> Layer:
        """Give a layer that was made its name.

        is_shared: one that another build has made meanwhile counts instead. Otherwise that gives way; while it is in use, the new one
        has a name of its own.
        """
        (path / "about.json").write_text(json.dumps(asdict(about)), encoding="utf-8")
        if is_shared and (found := self.find(key, held)):
            return found
        # Held before it has the name under which others remove it.
        descriptor = _lock_shared(path / "about.json")
        self._remove(self.folder / key, self.folder / key / "about.json")
        try:
            path.rename(self.folder / key)
        except OSError:
            key = f"{key}-{secrets.token_hex(4)}"
            path.rename(self.folder / key)
        held.add(self.folder / key, descriptor)
        return Layer(key, self.folder / key, about, time.time())

    def lend(self, path: Path, about: About) -> Layer:
        """Return a layer for this build alone: it is removed when nobody holds it any more."""
        return Layer(path.name, path, about, time.time())

    def list_all(self) -> list[Layer]:
        """Return all layers, those first that go first: the longest unused, and of a build the uppermost."""
        found = [self._load(path) for path in _iter_folders(self.folder) if not path.name.startswith(".")]
        return sorted((each for each in found if each), key=lambda each: (each.used_at, -each.about.depth))

    def prune(self, limit_bytes: int) -> list[Layer]:
        """Remove layers until the others have no more than this size; those that a build uses stay."""
        self.remove_leftovers()
        layers = self.list_all()
        size = sum(layer.about.size_bytes for layer in layers)
        removed = []
        for layer in layers:
            if size <= limit_bytes:
                break
            if self._remove(layer.path, layer.path / "about.json"):
                size -= layer.about.size_bytes
                removed.append(layer)
        return removed

    def remove_leftovers(self) -> None:
        """Remove layers that were never finished, and halves of removed ones."""
        for path in self.find_leftovers():
            if path.name.startswith(_NEW):
                self._remove(path, path / "lock")
            else:
                remove_build_folder(path)

    def find_leftovers(self) -> list[Path]:
        """Return the folders of layers that nobody makes any more, and of those that somebody has begun to remove."""
        return [path for path in _iter_folders(self.folder) if path.name.startswith(".") and _is_left(path)]

    def _remove(self, path: Path, lock: Path) -> bool:
        """Remove a folder that nobody holds; say whether it is gone."""
        trash = self.folder / f"{_TRASH}{secrets.token_hex(6)}"
        try:
            descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            # Another process removes it, or has only just made the folder.
            return not path.exists()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.rename(trash)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        remove_build_folder(trash)
        return True

    def _load(self, path: Path) -> Layer | None:
        try:
            text = (path / "about.json").read_text(encoding="utf-8")
            used_at = (path / "about.json").stat().st_mtime
            return Layer(path.name, path, _parse_about(json.loads(text)), used_at)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def find_store(places: Places) -> Store:
    """Return this user's store."""
    return Store(places.cache / "layers")


def shorten_key(digest: str) -> str:
    """Return as much of a digest as a folder's name needs: many of them must fit into the options of a mount."""
    return digest[:_KEY_DIGITS]


@dataclass(frozen=True)
class Changes:
    """What a step has changed. linked: the names of each file that has several, here and below.

    torn: names below that are new here, or no more where they were, while others of their file are not. An overlay may have made
    files of their own of them: of what is written to there, the other names see nothing.
    """

    size_bytes: int
    linked: tuple[tuple[str, ...], ...]
    torn: tuple[str, ...]


def write_linked(path: Path, linked: Iterable[Iterable[str]]) -> None:
    """Tell a step which files below have several names."""
    (path / "linked").write_bytes(b"".join(os.fsencode(name) + b"\0" for names in linked for name in names))


def read_changes(path: Path, below: Iterable[tuple[str, ...]]) -> Changes:
    """Read what a step has left about its changes. below: the names of each file below that has several.

    Where all names of one are those of another file now, as with a package that was upgraded, none is torn.
    """
    size = int((path / "size").read_text()) * 1024
    entries = [entry.split(b" ", 2) for entry in (path / "files").read_bytes().split(b"\0") if entry]
    files = {os.fsdecode(name): int(inode) for _, inode, name in entries}
    gone = (path / "gone").read_bytes() if (path / "gone").exists() else b""
    lost = {os.fsdecode(name) for name in gone.split(b"\0") if name}
    linked: list[tuple[str, ...]] = []
    torn: list[str] = []
    for names in below:
        changed = [name for name in names if name in files or name in lost]
        if not changed:
            linked.append(names)
        elif len({files.get(name) for name in names}) > 1 or lost.intersection(names):
            torn += changed
    groups: dict[int, list[str]] = {}
    for count, inode, name in entries:
        if int(count) > 1:
            groups.setdefault(int(inode), []).append(os.fsdecode(name))
    linked += [tuple(sorted(names)) for names in groups.values()]
    return Changes(size, tuple(sorted(linked)), tuple(sorted(torn)))


def _parse_about(fields: Mapping[str, Any]) -> About:
    return About(
        title=str(fields["title"]),
        depth=int(fields["depth"]),
        size_bytes=int(fields["size_bytes"]),
        is_whole=bool(fields["is_whole"]),
        lower=tuple(fields["lower"]),
        linked=tuple(tuple(names) for names in fields["linked"]),
    )


def _iter_folders(folder: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError):
        yield from sorted(path for path in folder.iterdir() if path.is_dir())


def _hold(path: Path, held: Held) -> bool:
    """Hold a layer that is there. False where there is none, or somebody has removed it before we held it."""
    if held.has(path):
        return True
    about = path / "about.json"
    try:
        descriptor = _lock_shared(about)
    except FileNotFoundError:
        return False
    if not _is_same(descriptor, about):
        os.close(descriptor)
        return False
    os.utime(descriptor)
    held.add(path, descriptor)
    return True


def _lock_shared(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def _is_left(path: Path) -> bool:
    """Say whether nobody works in a folder with a name that is not for ever. Another process may remove it at any moment."""
    try:
        if not path.name.startswith(_NEW):
            # A rename counts as a change of what is renamed.
            return time.time() - path.stat().st_ctime > _REMOVED_WITHIN_S
        descriptor = os.open(path / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        # Only just made, or gone.
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
