"""All files of an image, each with its digest, and the packages that they say are installed. Read without the engine.

unsquashfs prints a file system as one stream: a table, then the content of all files in the table's order. So nothing is unpacked
to a disk, and an image of some hundred megabytes takes seconds. Files of an unpacked image are read where they lie.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from ..engine.companions import stream_companion
from ..engine.locate import EngineInfo
from ..engine.step import StepError
from ..errors import ImageCorrupt, ImageInvalid
from .identity import ImageIdentity, check_image
from .packages import Package, find_packages, is_wanted
from .sif import read_sif

Kind = Literal["file", "folder", "link", "device", "pipe"]
_KINDS: Mapping[str, Kind] = {"R": "file", "D": "folder", "S": "link", "B": "device", "C": "device", "I": "pipe"}
_END_OF_TABLE = b"#\n# START OF DATA - DO NOT MODIFY\n#\n"
# A blank, a quote, a backslash or a line break in a name stands behind a backslash.
_ROW = re.compile(rb"^((?:[^\s\\]|\\.)+) ([A-Za-z]) ([^\n]*)$", re.DOTALL | re.MULTILINE)
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_BLOCK = 1 << 20
# Of the digest of a folder: enough to tell two apart, the digest of the whole is the proof.
_SHORT = 16
_MAX_TABLE_BYTES = 1 << 30
_MAX_KEPT_BYTES = 64 << 20
OnFound = Callable[[str, bytes], object]


@dataclass(frozen=True)
class Entry:
    """One file. digest: SHA-256 of a file's content; a link's target; a device's numbers. owner: None in a folder on the host.

    A hard link is a file of its own.
    """

    kind: Kind
    mode: int
    owner: tuple[int, int] | None
    size_bytes: int
    digest: str

    def render(self) -> str:
        """All of it in one line, as it goes into the digest of the whole."""
        owner = "-" if self.owner is None else f"{self.owner[0]}:{self.owner[1]}"
        return f"{self.kind} {self.mode:o} {owner} {self.size_bytes} {self.digest}"


@dataclass(frozen=True)
class Inventory:
    """files: by path, without a slash in front. packages: in order of manager, place and name."""

    files: Mapping[str, Entry]
    packages: tuple[Package, ...]

    def compute_digest(self) -> str:
        """Return the SHA-256 of names, kinds, permissions, owners and contents; times and compression do not count."""
        digest = hashlib.sha256()
        for path in sorted(self.files):
            digest.update(self._render(path))
        return digest.hexdigest()

    def compute_folder_digests(self) -> dict[str, str]:
        """Return the same for each folder of the first two levels, so that what differs can be found roughly."""
        digests: dict[str, Any] = {}
        for path in sorted(self.files):
            top = "/".join(path.split("/")[:2])
            digests.setdefault(top, hashlib.sha256()).update(self._render(path))
        return {top: digest.hexdigest()[:_SHORT] for top, digest in digests.items()}

    def _render(self, path: str) -> bytes:
        return f"{path}\0{self.files[path].render()}\n".encode("utf-8", "surrogateescape")


def read_inventory(engine: EngineInfo, path: str) -> Inventory:
    """Read all files of an image. Raises what `check_image` does; ImageInvalid for what is no squashfs."""
    identity = check_image(path)
    kept: dict[str, bytes] = {}
    if identity.kind == "sandbox":
        files = dict(_iter_folder(Path(identity.real_path), kept))
    else:
        argv = ("unsquashfs", "-offset", str(_find_offset(identity)), "-pf", "-", identity.real_path)
        try:
            with stream_companion(engine, argv, f"read {path}") as stream:
                files = _read_stream(stream, kept)
        except (StepError, EOFError) as error:
            raise ImageCorrupt(f"the image {path} cannot be read to its end: {error}") from error
    return Inventory(files, find_packages(kept))


def find_in_files(engine: EngineInfo, path: str, needles: Mapping[bytes, str]) -> list[tuple[str, str]]:
    """Search all files of a SIF or squashfs for pieces of bytes; return (value of `needles`, path) of what is found.

    What lies beside the file system, such as the definition, is searched as well, and has no path.
    """
    identity = check_image(path)
    offset = _find_offset(identity)
    found: list[tuple[str, str]] = []
    with open(identity.real_path, "rb") as head:
        beside = head.read(offset)
    found += [(name, "") for needle, name in needles.items() if needle in beside]
    argv = ("unsquashfs", "-offset", str(offset), "-pf", "-", identity.real_path)
    with stream_companion(engine, argv, f"read {path}") as stream:
        _read_stream(stream, {}, lambda file, needle: found.append((needles[needle], file)), tuple(needles))
    return list(dict.fromkeys(found))


def _find_offset(identity: ImageIdentity) -> int:
    if identity.kind == "squashfs":
        return 0
    system = read_sif(identity.path).system_partition if identity.kind == "sif" else None
    if system is None or system.partition is None or system.partition.file_system != "squashfs":
        raise ImageInvalid(f"the files of {identity.path} cannot be read: it is no squashfs")
    return system.offset


# --- the stream of unsquashfs


def _read_stream(
    stream: IO[bytes], kept: dict[str, bytes], on_found: OnFound = lambda *_: None, needles: Sequence[bytes] = ()
) -> dict[str, Entry]:
    rest, table = _read_table(stream)
    files: dict[str, Entry] = {}
    links: list[tuple[str, str]] = []
    contents = _Contents(stream, rest, needles)
    for path, kind, words in _iter_rows(table):
        if kind == "L":
            links.append((path, os.fsdecode(_ESCAPE.sub(rb"\1", words))))
        elif kind in _KINDS:
            files[path] = _parse_entry(path, kind, words, contents, kept)
            for needle in contents.found:
                on_found(path, needle)
            contents.found.clear()
    for path, target in links:
        files[path] = files[target]
        if target in kept and is_wanted(path):
            kept[path] = kept[target]
    files.pop("", None)
    return files


def _read_table(stream: IO[bytes]) -> tuple[bytes, bytes]:
    """Return what was read behind the table, and the table."""
    found = b""
    searched = 0
    while (end := found.find(_END_OF_TABLE, searched)) < 0:
        block = stream.read(_BLOCK)
        if not block or len(found) > _MAX_TABLE_BYTES:
            raise EOFError("its table of files has no end")
        searched = max(0, len(found) - len(_END_OF_TABLE))
        found += block
    return found[end + len(_END_OF_TABLE) :], found[:end]


def _iter_rows(table: bytes) -> Iterator[tuple[str, str, bytes]]:
    """Yield path, letter and the rest of each row. Of a link's target with a line break only the first line is seen."""
    for match in _ROW.finditer(table):
        yield os.fsdecode(_ESCAPE.sub(rb"\1", match[1])).strip("/"), match[2].decode(), match[3]


def _parse_entry(path: str, kind: str, words: bytes, contents: _Contents, kept: dict[str, bytes]) -> Entry:
    _, mode, user, group, *rest = words.split(b" ", 4)
    size, digest = 0, ""
    if kind == "R":
        size = int(rest[0].split()[0])
        digest, content = contents.read(size, keep=is_wanted(path))
        if content is not None:
            kept[path] = content
    elif rest and kind in "SBC":
        digest = os.fsdecode(rest[0])
    return Entry(_KINDS[kind], int(mode, 8), (int(user), int(group)), size, digest)


class _Contents:
    """The files behind the table, one after the other."""

    def __init__(self, stream: IO[bytes], rest: bytes, needles: Sequence[bytes] = ()) -> None:
        self._stream = stream
        self._rest = rest
        self._needles = needles
        self._overlap = max(map(len, needles), default=1) - 1
        # Those that the files have been found to hold.
        self.found: set[bytes] = set()

    def read(self, size: int, *, keep: bool) -> tuple[str, bytes | None]:
        """Return the digest of the next `size` bytes, and them where they are wanted."""
        digest = hashlib.sha256()
        parts: list[bytes] | None = [] if keep and size <= _MAX_KEPT_BYTES else None
        before = b""
        while size:
            block = self._take(min(size, _BLOCK))
            digest.update(block)
            if self._needles:
                window = before + block
                self.found.update(needle for needle in self._needles if needle in window)
                before = window[-self._overlap :] if self._overlap else b""
            if parts is not None:
                parts.append(block)
            size -= len(block)
        return digest.hexdigest(), None if parts is None else b"".join(parts)

    def _take(self, size: int) -> bytes:
        if self._rest:
            block, self._rest = self._rest[:size], self._rest[size:]
        else:
            block = self._stream.read(size)
        if not block:
            raise EOFError("its content is not whole")
        return block


# --- a folder of the host


def _iter_folder(root: Path, kept: dict[str, bytes]) -> Iterator[tuple[str, Entry]]:
    for folder, folders, names in os.walk(root, onerror=_raise):
        for name in [*folders, *names]:
            path = Path(folder, name)
            place = os.path.relpath(path, root)
            status = path.lstat()
            kind = _name_kind(status.st_mode)
            if kind is not None:
                digest = _describe(path, kind, status, place, kept)
                size = status.st_size if kind == "file" else 0
                yield place, Entry(kind, stat.S_IMODE(status.st_mode), None, size, digest)


def _raise(error: OSError) -> None:
    raise ImageInvalid(f"{error.filename} cannot be read: {error.strerror}") from error


def _name_kind(mode: int) -> Kind | None:
    tests: tuple[tuple[Callable[[int], bool], Kind], ...] = (
        (stat.S_ISREG, "file"),
        (stat.S_ISDIR, "folder"),
        (stat.S_ISLNK, "link"),
        (stat.S_ISCHR, "device"),
        (stat.S_ISBLK, "device"),
        (stat.S_ISFIFO, "pipe"),
    )
    return next((kind for test, kind in tests if test(mode)), None)


def _describe(path: Path, kind: Kind, status: os.stat_result, place: str, kept: dict[str, bytes]) -> str:
    if kind == "link":
        return os.readlink(path)
    if kind == "device":
        return f"{os.major(status.st_rdev)} {os.minor(status.st_rdev)}"
    if kind != "file":
        return ""
    try:
        with path.open("rb") as stream:
            digest, content = _Contents(stream, b"").read(status.st_size, keep=is_wanted(place))
    except OSError as error:
        raise ImageInvalid(f"{path} cannot be read: {error.strerror}") from error
    if content is not None:
        kept[place] = content
    return digest
