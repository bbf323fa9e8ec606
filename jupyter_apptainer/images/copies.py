"""Unpacked copies of images on a disk of this machine: found by the identity of the image, whole or not at all, removed when they are too many.

A copy is a folder KEY with `about.json` and, under the name of the image's file, its content. It is made under another name and renamed when
it is whole. Who makes one holds an exclusive lock on its `lock`, so what nobody holds may go, whatever became of the process. Which copies
kernels use says the ledger. How long one was not used, the time of its `about.json` says.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..engine.lock import hold_lock
from ..errors import ApptainerError
from ..instances.janitor import remove_tree
from ..instances.ledger import iter_entries
from ..places import Places, make_private_dir, write_private_file
from .identity import ImageIdentity, check_image

_ABOUT, _LOCK = "about.json", ".lock"
_NEW, _TRASH = ".new-", ".old-"
_KEY_DIGITS = 24
# Scratch folders are often cleaned of single files that are old: that takes many of them, so a few tell.
_SAMPLES = 32


@dataclass(frozen=True)
class About:
    """What is written beside a copy. image: the image's file. identity: of that file, as it was. files: how many there are in it.

    samples: some of them, from everywhere in it.
    """

    image: str
    identity: str
    size_bytes: int
    files: int
    made_at: float
    samples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Copy:
    """One that is there. tree: the folder that the engine starts. used_at: seconds since 1970."""

    key: str
    path: Path
    about: About
    used_at: float

    @property
    def tree(self) -> Path:
        """The content, in a folder with the name of the image's file."""
        return self.path / os.path.basename(self.about.image)

    @property
    def is_whole(self) -> bool:
        """Whether nobody has removed many of its files."""
        return self.tree.is_dir() and all(os.path.lexists(self.tree / name) for name in self.about.samples)

    @property
    def is_current(self) -> bool:
        """Whether the image is still the one that was unpacked."""
        try:
            return check_image(self.about.image).key == self.about.identity
        except ApptainerError:
            return False

    def to_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "copy": self.key,
            "image": self.about.image,
            "path": str(self.tree),
            "size_bytes": self.about.size_bytes,
            "files": self.about.files,
            "made_at": self.about.made_at,
            "used_at": self.used_at,
            "current": self.is_current,
        }


class CopyStore:
    """The copies of one user on one host. limit_bytes: of all together; 0: there shall be none."""

    def __init__(self, folder: Path, limit_bytes: int, places: Places) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.places = places

    def find(self, identity: ImageIdentity) -> Copy | None:
        """Return the copy of exactly this image; None where there is none, or it is not whole."""
        copy = _load(self.folder / make_key(identity))
        return copy if copy and copy.about.identity == identity.key and copy.is_whole else None

    def list_all(self) -> list[Copy]:
        """Return all copies, the longest unused first."""
        found = [_load(path) for path in _iter_folders(self.folder) if not path.name.startswith(".")]
        return sorted((each for each in found if each), key=lambda each: each.used_at)

    def lock(self) -> AbstractContextManager[None]:
        """Let nobody else take a copy into use, or out of it, meanwhile."""
        return hold_lock(self.folder / _LOCK)

    def touch(self, copy: Copy) -> None:
        """Note that it is used."""
        with suppress(OSError):
            os.utime(copy.path / _ABOUT)

    @contextmanager
    def begin(self, identity: ImageIdentity) -> Iterator[Path]:
        """Make a folder for a new copy. What is not kept at the end of the block is removed."""
        make_private_dir(self.folder)
        path = self.folder / f"{_NEW}{make_key(identity)}-{secrets.token_hex(4)}"
        with self.lock():
            # Under the lock, or it could be taken for a leftover before it is held.
            path.mkdir(mode=0o700)
            descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield path
        finally:
            os.close(descriptor)
            if path.exists():
                remove_tree(str(path))

    def keep(self, path: Path, identity: ImageIdentity, size_bytes: int) -> Copy:
        """Give a copy that is complete its name. One that another process has made meanwhile counts instead."""
        names = list(_iter_names(path / os.path.basename(identity.real_path)))
        samples = tuple(names[:: max(1, len(names) // _SAMPLES)])
        about = About(identity.real_path, identity.key, size_bytes, len(names), time.time(), samples)
        write_private_file(path / _ABOUT, json.dumps(asdict(about)))
        _sync(path / _ABOUT)
        with self.lock():
            if found := self.find(identity):
                return found
            final = self.folder / make_key(identity)
            path.rename(final)
        _sync(self.folder)
        (final / "lock").unlink(missing_ok=True)
        return Copy(final.name, final, about, about.made_at)

    def drop_stale(self) -> list[Copy]:
        """Remove copies of images that have changed or are gone, and those that lack files, unless a kernel runs in one."""
        return self._drop([copy for copy in self.list_all() if not (copy.is_current and copy.is_whole)], 0)

    def prune(self, limit_bytes: int | None = None) -> list[Copy]:
        """Remove copies, the longest unused first, until the others have no more than this size; those that kernels run in stay."""
        self.remove_leftovers()
        limit = self.limit_bytes if limit_bytes is None else limit_bytes
        return [*self.drop_stale(), *self._drop(self.list_all(), limit)]

    def find_leftovers(self) -> list[Path]:
        """Return copies that were never finished, halves of removed ones, and folders that do not say what they are a copy of."""
        used = {Path(tree).parent for tree in find_used(self.places)}
        return [path for path in _iter_folders(self.folder) if path not in used and _is_left(path)]

    def remove_leftovers(self) -> list[Path]:
        """Remove them."""
        if not self.folder.is_dir():
            return []
        with self.lock():
            found = [self._throw_away(path) for path in self.find_leftovers()]
        for path in found:
            remove_tree(str(path))
        return found

    def _drop(self, copies: list[Copy], limit_bytes: int) -> list[Copy]:
        if not copies:
            return []
        size = sum(copy.about.size_bytes for copy in copies)
        dropped: list[Copy] = []
        with self.lock():
            used = find_used(self.places)
            for copy in copies:
                if size > limit_bytes and str(copy.tree) not in used and copy.path.exists():
                    dropped.append(copy)
                    size -= copy.about.size_bytes
            trash = [self._throw_away(copy.path) for copy in dropped]
        for path in trash:
            remove_tree(str(path))
        return dropped

    def _throw_away(self, path: Path) -> Path:
        """Take a folder out of sight; to remove all its files takes longer than the lock may be held."""
        trash = self.folder / f"{_TRASH}{secrets.token_hex(6)}"
        path.rename(trash)
        return trash


def find_used(places: Places) -> frozenset[str]:
    """Return the content folders of copies that kernels run in."""
    return frozenset(entry.unpacked for entry in iter_entries(places) if entry.unpacked)


def make_key(identity: ImageIdentity) -> str:
    """Return the folder's name for the copy of an image."""
    return hashlib.sha256(identity.key.encode()).hexdigest()[:_KEY_DIGITS]


def _load(path: Path) -> Copy | None:
    try:
        record = json.loads((path / _ABOUT).read_text(encoding="utf-8"))
        about = About(
            image=str(record["image"]),
            identity=str(record["identity"]),
            size_bytes=int(record["size_bytes"]),
            files=int(record["files"]),
            made_at=float(record["made_at"]),
            samples=tuple(map(str, record["samples"])),
        )
        return Copy(path.name, path, about, (path / _ABOUT).stat().st_mtime)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _iter_names(tree: Path) -> Iterator[str]:
    """Yield the paths of all that is in a folder, from there."""
    for folder, folders, names in os.walk(tree):
        yield from (os.path.relpath(os.path.join(folder, name), tree) for name in sorted([*folders, *names]))


def _iter_folders(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from sorted(path for path in folder.iterdir() if path.is_dir())


def _is_left(path: Path) -> bool:
    """Say whether a folder is no copy, and nobody works in it. Another process may remove it at any moment."""
    if path.name.startswith(_TRASH):
        return True
    if not path.name.startswith(_NEW):
        return _load(path) is None and path.exists()
    try:
        descriptor = os.open(path / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return path.exists()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
