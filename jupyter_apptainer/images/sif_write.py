"""Write the container file of the engine, SIF: a whole header in front of a file system, or one more small object.

The layout is the engine's own, with its reserved table of 48 descriptors. Times and identity are the caller's, so that the same
content gives the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import platform
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ImageInvalid

# https://github.com/apptainer/sif/blob/main/pkg/sif/sif.go
_LAUNCH = b"#!/usr/bin/env run-singularity\n"
_HEADER = struct.Struct("<32s10s3s3s16s8q")
_DESCRIPTOR = struct.Struct("<i?III7q128s384s")
_TABLE_AT = 4096
_DESCRIPTORS = 48
_DATA_AT = _TABLE_AT + _DESCRIPTORS * _DESCRIPTOR.size
_DEFINITION, _PARTITION, _JSON = 0x4001, 0x4004, 0x4006
_SQUASHFS, _PRIMARY_SYSTEM = 1, 2
_FIRST_GROUP = 0xF0000001
_PAGE = 4096
_BLOCK = 1 << 20
_ARCHITECTURES = {
    "i686": 1,
    "x86_64": 2,
    "armv7l": 3,
    "aarch64": 4,
    "ppc64": 5,
    "ppc64le": 6,
    "s390x": 11,
    "riscv64": 12,
}


@dataclass(frozen=True)
class Text:
    """A small object. name: empty for the definition."""

    name: str
    content: bytes

    @property
    def kind(self) -> int:
        """The number of the object's type."""
        return _JSON if self.name else _DEFINITION


def measure_offset(texts: Sequence[Text]) -> int:
    """Return where the file system begins behind these objects."""
    end = _DATA_AT + sum(len(text.content) for text in texts)
    return -(-end // _PAGE) * _PAGE


def write_header(path: Path, texts: Sequence[Text], created_at: int) -> None:
    """Complete a file that has a squashfs at `measure_offset(texts)`, and holes before that, to a SIF.

    created_at: seconds since 1970. The image's UUID is made of its content.
    """
    start = measure_offset(texts)
    size = path.stat().st_size
    architecture = b"%02d\0" % _ARCHITECTURES.get(platform.machine(), 0)
    rows, offset = [], _DATA_AT
    for number, text in enumerate(texts, 1):
        rows.append(_build_row(text.kind, number, offset, len(text.content), created_at, text.name))
        offset += len(text.content)
    extra = struct.pack("<ii3s", _SQUASHFS, _PRIMARY_SYSTEM, architecture)
    rows.append(_build_row(_PARTITION, len(texts) + 1, start, size - start, created_at, "", extra))
    blob = b"".join(text.content for text in texts)
    numbers = (created_at, created_at, _DESCRIPTORS - len(rows), _DESCRIPTORS, _TABLE_AT)
    table_bytes = _DESCRIPTORS * _DESCRIPTOR.size
    identity = _compute_uuid(path, start, blob)
    head = _HEADER.pack(
        _LAUNCH, b"SIF_MAGIC", b"01", architecture, identity, *numbers, table_bytes, _DATA_AT, size - _DATA_AT
    )
    with path.open("r+b") as stream:
        stream.write(head)
        stream.seek(_TABLE_AT)
        stream.write(b"".join(rows))
        stream.seek(_DATA_AT)
        stream.write(blob)
    path.chmod(0o777 & ~_get_umask())


def append_text(path: Path, text: Text) -> None:
    """Add one small object to the end of a SIF that nobody uses yet. Raises ImageInvalid where its table is full."""
    with path.open("r+b") as stream:
        head = list(_HEADER.unpack(stream.read(_HEADER.size)))
        created, free, total, table_at, data_at = head[5], head[7], head[8], head[9], head[11]
        stream.seek(table_at)
        table = list(_DESCRIPTOR.iter_unpack(stream.read(total * _DESCRIPTOR.size)))
        slot = next((index for index, row in enumerate(table) if not row[1]), None)
        if slot is None or not free:
            raise ImageInvalid(f"the image {path} has no room for another object")
        offset = stream.seek(0, os.SEEK_END)
        stream.write(text.content)
        number = max((row[2] for row in table if row[1]), default=0) + 1
        stream.seek(table_at + slot * _DESCRIPTOR.size)
        stream.write(_build_row(text.kind, number, offset, len(text.content), created, text.name))
        head[7], head[12] = free - 1, offset + len(text.content) - data_at
        stream.seek(0)
        stream.write(_HEADER.pack(*head))


def _build_row(kind: int, number: int, offset: int, size: int, created_at: int, name: str, extra: bytes = b"") -> bytes:
    times = (created_at, created_at, 0, 0)
    return _DESCRIPTOR.pack(kind, True, number, _FIRST_GROUP, 0, offset, size, size, *times, name.encode(), extra)


def _compute_uuid(path: Path, start: int, blob: bytes) -> bytes:
    digest = hashlib.sha256(blob)
    with path.open("rb") as stream:
        stream.seek(start)
        while block := stream.read(_BLOCK):
            digest.update(block)
    identity = bytearray(digest.digest()[:16])
    # RFC 9562: version 8 is for values that an application makes up itself.
    identity[6] = identity[6] & 0x0F | 0x80
    identity[8] = identity[8] & 0x3F | 0x80
    return bytes(identity)


def _get_umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
