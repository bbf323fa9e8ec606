"""Read the container file of the engine, SIF, without the engine: what is in it, and its small parts.

The format is that of https://github.com/apptainer/sif: a header, a table of descriptors, objects anywhere behind. A file may
be cut short or made to mislead: each number is checked against the file's size, and nothing is read without a limit.
"""

from __future__ import annotations

import json
import os
import struct
import uuid
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

from ..errors import ImageCorrupt, ImageInvalid

# What people write by hand: a definition file, labels. Larger ones are not read.
MAX_TEXT_BYTES = 4 * 1024 * 1024

_HEADER = struct.Struct("<32s10s3s3s16s8q")
_MAGIC = b"SIF_MAGIC\0"
_DESCRIPTOR = struct.Struct("<i?III7q128s384s")
_MAX_DESCRIPTORS = 4096
_GROUP_MASK = 0xF0000000

ObjectKind = Literal["definition", "environment", "labels", "partition", "signature", "json", "other"]
FileSystem = Literal["squashfs", "ext3", "archive", "raw", "encrypted squashfs", "unknown"]
Role = Literal["system", "primary system", "data", "overlay", "unknown"]

_KINDS: dict[int, ObjectKind] = {
    0x4001: "definition",
    0x4002: "environment",
    0x4003: "labels",
    0x4004: "partition",
    0x4005: "signature",
    0x4006: "json",
}
_FILE_SYSTEMS: dict[int, FileSystem] = {
    1: "squashfs",
    2: "ext3",
    3: "archive",
    4: "raw",
    5: "encrypted squashfs",
}
_ROLES: dict[int, Role] = {1: "system", 2: "primary system", 3: "data", 4: "overlay"}
_ARCHITECTURES = dict(
    enumerate(
        (
            "386",
            "amd64",
            "arm",
            "arm64",
            "ppc64",
            "ppc64le",
            "mips",
            "mipsle",
            "mips64",
            "mips64le",
            "s390x",
            "riscv64",
        ),
        start=1,
    )
)
_HASHES = {1: "SHA-256", 2: "SHA-384", 3: "SHA-512", 4: "BLAKE2s", 5: "BLAKE2b"}


@dataclass(frozen=True)
class Partition:
    """A file system in a SIF."""

    file_system: FileSystem
    role: Role
    architecture: str


@dataclass(frozen=True)
class Signature:
    """A signature: the hash it uses, the key that made it (hexadecimal), and the group of objects that it covers."""

    hash: str
    fingerprint: str
    group: int


@dataclass(frozen=True)
class SifObject:
    """One object: where it lies in the file, in bytes, and what it is."""

    id: int
    kind: ObjectKind
    name: str
    group: int
    offset: int
    size_bytes: int
    partition: Partition | None = None
    signature: Signature | None = None


@dataclass(frozen=True)
class Sif:
    """The contents of a SIF. created_at, modified_at: seconds since 1970. architecture: as the engine names it, amd64."""

    path: str
    uuid: str
    architecture: str
    created_at: int
    modified_at: int
    objects: tuple[SifObject, ...]

    def find(self, kind: ObjectKind) -> tuple[SifObject, ...]:
        """Return the objects of one kind."""
        return tuple(each for each in self.objects if each.kind == kind)

    @property
    def system_partition(self) -> SifObject | None:
        """The file system that a container sees as its root."""
        partitions = [each for each in self.objects if each.partition]
        primary = [each for each in partitions if each.partition and each.partition.role == "primary system"]
        return next(iter(primary or partitions), None)

    @property
    def overlays(self) -> tuple[SifObject, ...]:
        """Overlays that are embedded in the image; `--writable` uses the first."""
        return tuple(each for each in self.objects if each.partition and each.partition.role == "overlay")


def read_sif(path: str) -> Sif:
    """Read the table of contents. Raises ImageInvalid for a file that is no SIF, ImageCorrupt for one that is damaged."""
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            head = stream.read(_HEADER.size)
            if head[32:42] != _MAGIC:
                raise ImageInvalid(f"the file {path} is not a SIF image")
            if len(head) < _HEADER.size:
                raise ImageCorrupt(f"the image {path} is cut short: it ends in its header")
            return _read_contents(path, stream, head, size)
    except OSError as error:
        raise ImageInvalid(
            f"the image {path} cannot be read: {error.strerror}", hint="check its permissions"
        ) from error


def read_text(sif: Sif, wanted: SifObject) -> str:
    """Return the content of a small object as text; bytes that are no UTF-8 are replaced. Raises ImageCorrupt."""
    if wanted.size_bytes > MAX_TEXT_BYTES:
        raise ImageCorrupt(f"the image {sif.path} has an object {wanted.name!r} that is too large to be a text")
    with open(sif.path, "rb") as stream:
        stream.seek(wanted.offset)
        content = stream.read(wanted.size_bytes)
    if len(content) < wanted.size_bytes:
        raise ImageCorrupt(f"the image {sif.path} is cut short: its object {wanted.name!r} is not whole")
    return content.rstrip(b"\0").decode("utf-8", "replace")


def read_json(sif: Sif, wanted: SifObject) -> dict[str, Any]:
    """Return the content of a small object that holds a JSON document. Raises ImageCorrupt."""
    try:
        document = json.loads(read_text(sif, wanted))
    except (ValueError, RecursionError) as error:
        raise ImageCorrupt(f"the image {sif.path} has an object {wanted.name!r} that is no JSON") from error
    return document if isinstance(document, dict) else {}


def _read_contents(path: str, stream: BinaryIO, head: bytes, size: int) -> Sif:
    _, _, _, arch, identity, created, modified, _, total, table_at, _, _, _ = _HEADER.unpack(head)
    if not 0 < total <= _MAX_DESCRIPTORS or not _HEADER.size <= table_at:
        raise ImageCorrupt(f"the image {path} has a damaged header")
    length = total * _DESCRIPTOR.size
    if table_at + length > size:
        raise ImageCorrupt(f"the image {path} is cut short: its table of contents is not whole")
    stream.seek(table_at)
    table = stream.read(length)
    if len(table) < length:
        raise ImageCorrupt(f"the image {path} is cut short: its table of contents is not whole")
    objects = [_parse_object(path, fields, size) for fields in _DESCRIPTOR.iter_unpack(table) if fields[1]]
    return Sif(path, str(uuid.UUID(bytes=identity)), _name_architecture(arch), created, modified, tuple(objects))


def _parse_object(path: str, fields: tuple[Any, ...], size: int) -> SifObject:
    number, _, identity, group, link, offset, length, *_, name, extra = fields
    if offset < 0 or length < 0 or offset + length > size:
        raise ImageCorrupt(
            f"the image {path} is cut short or damaged: its object {identity} lies outside of the file",
            hint="its copy or download was interrupted: fetch or build it again",
        )
    kind = _KINDS.get(number, "other")
    return SifObject(
        id=identity,
        kind=kind,
        name=_parse_text(name),
        group=group & ~_GROUP_MASK,
        offset=offset,
        size_bytes=length,
        partition=_parse_partition(extra) if kind == "partition" else None,
        signature=_parse_signature(extra, link) if kind == "signature" else None,
    )


def _parse_partition(extra: bytes) -> Partition:
    file_system, role, arch = struct.unpack_from("<ii3s", extra)
    return Partition(_FILE_SYSTEMS.get(file_system, "unknown"), _ROLES.get(role, "unknown"), _name_architecture(arch))


def _parse_signature(extra: bytes, link: int) -> Signature:
    # The fingerprint of a PGP key has 20 bytes; other kinds of signature leave them empty.
    number, fingerprint = struct.unpack_from("<i20s", extra)
    return Signature(_HASHES.get(number, "unknown"), fingerprint.hex() if any(fingerprint) else "", link & ~_GROUP_MASK)


def _name_architecture(code: bytes) -> str:
    digits = _parse_text(code)
    return _ARCHITECTURES.get(int(digits), "unknown") if digits.isascii() and digits.isdigit() else "unknown"


def _parse_text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")
