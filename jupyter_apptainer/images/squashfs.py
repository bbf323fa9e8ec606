"""The superblock of a squashfs: how it is compressed, in which blocks, and when it was made. Nothing else of it is read."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ..errors import ImageCorrupt

# https://dr-emann.github.io/squashfs/: magic, inodes, time, block size, fragments, compression, …, version, …, bytes used.
_SUPERBLOCK = struct.Struct("<4sIIIIHHHHHHQQ")
_MAGIC = b"hsqs"
_COMPRESSIONS = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}


@dataclass(frozen=True)
class Superblock:
    """created_at: seconds since 1970; 0 where the maker fixed it. size_bytes: what the file system takes."""

    compression: str
    block_bytes: int
    created_at: int
    inodes: int
    size_bytes: int


def read_superblock(path: str, offset: int = 0) -> Superblock:
    """Read the superblock that begins at `offset` of the file. Raises ImageCorrupt where there is none."""
    with open(path, "rb") as stream:
        stream.seek(offset)
        content = stream.read(_SUPERBLOCK.size)
    if len(content) < _SUPERBLOCK.size or not content.startswith(_MAGIC):
        raise ImageCorrupt(f"the image {path} is damaged: its file system has no valid beginning")
    _, inodes, created, block, _, compression, _, _, _, major, _, _, used = _SUPERBLOCK.unpack(content)
    if major != 4 or not 4096 <= block <= 1024 * 1024:
        raise ImageCorrupt(f"the image {path} is damaged: its file system has impossible settings")
    return Superblock(_COMPRESSIONS.get(compression, "unknown"), block, created, inodes, used)
