"""Which folders of an image an overlay changes, read from the overlay's file without mounting it, in a millisecond or so.

Only what the engine's own overlays have is understood: ext3 and ext4 as mkfs makes them. Whoever finds anything else is told so.
https://docs.kernel.org/filesystems/ext4/
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO

from .ext3 import read_ext3

UPPER = "upper"
_ROOT_INODE = 2
_SUPERBLOCK = 1024
# s_feature_incompat: file types in folders, extents, 64 bit, flexible groups, seeds of checksums.
_KNOWN_FEATURES = 0x2 | 0x40 | 0x80 | 0x200 | 0x2000
_IS_64_BIT = 0x80
_HAS_EXTENTS = 0x80000
_EXTENT_MAGIC, _ATTRIBUTE_MAGIC = 0xF30A, 0xEA020000
_GOOD_INODE_BYTES = 128
_HIDDEN, _OPAQUE = ".wh.", ".wh..wh..opq"
_MAX_FOLDER_BYTES = 4 << 20


class NotUnderstood(Exception):
    """It is not what the engine makes, or was not closed properly."""


@dataclass(frozen=True)
class _Inode:
    mode: int
    size: int
    flags: int
    blocks: bytes
    has_attributes: bool


def find_changed(path: str, folders: Iterable[str]) -> frozenset[str] | None:
    """Return those of the folders in which the overlay may have something else than the image; None where that cannot be told.

    folders: absolute paths in the container, without links.
    """
    try:
        ext3 = read_ext3(path)
        if ext3 is None or not ext3.is_clean:
            return None
        with open(path, "rb") as stream:
            tree = _Tree(stream, ext3.block_bytes)
            return frozenset(folder for folder in folders if tree.is_changed(folder))
    except (OSError, struct.error, NotUnderstood):
        return None


class _Tree:
    def __init__(self, stream: IO[bytes], block_bytes: int) -> None:
        self.stream = stream
        self.block_bytes = block_bytes
        block = self._read(_SUPERBLOCK, _SUPERBLOCK)
        (self.first_block,) = struct.unpack_from("<I", block, 20)
        (self.inodes_per_group,) = struct.unpack_from("<I", block, 40)
        (self.inode_bytes,) = struct.unpack_from("<H", block, 88)
        (features,) = struct.unpack_from("<I", block, 96)
        (wide,) = struct.unpack_from("<H", block, 254)
        if features & ~_KNOWN_FEATURES or not self.inodes_per_group or self.inode_bytes < _GOOD_INODE_BYTES:
            raise NotUnderstood
        self.group_bytes = wide if features & _IS_64_BIT else 32
        self.listings: dict[int, dict[str, int]] = {}

    def is_changed(self, folder: str) -> bool:
        """Say whether the overlay has the folder, or hides it, or a folder above."""
        number = self.list_folder(_ROOT_INODE).get(UPPER)
        for word in folder.strip("/").split("/"):
            if number is None:
                return False
            names = self.list_folder(number)
            if _HIDDEN + word in names:
                return True
            number = names.get(word)
            if number is not None and not self.is_merged(number):
                return True
        return number is not None

    def is_merged(self, number: int) -> bool:
        """Say whether it is a folder that only adds to the image's: no file, no mark of a deletion, nothing that takes its place."""
        inode = self.read_inode(number)
        return stat.S_ISDIR(inode.mode) and not inode.has_attributes and _OPAQUE not in self.list_folder(number)

    def list_folder(self, number: int) -> dict[str, int]:
        """Return the inodes of what is in the folder, by name."""
        if number not in self.listings:
            self.listings[number] = dict(self._iter_folder(number))
        return self.listings[number]

    def _iter_folder(self, number: int) -> Iterator[tuple[str, int]]:
        inode = self.read_inode(number)
        if not stat.S_ISDIR(inode.mode) or inode.size > _MAX_FOLDER_BYTES:
            raise NotUnderstood
        for block in self._iter_blocks(inode):
            data, at = self._read_block(block), 0
            while at + 8 <= len(data):
                found, length, name_length = struct.unpack_from("<IHB", data, at)
                if length < 8:
                    raise NotUnderstood
                if found:
                    yield os.fsdecode(data[at + 8 : at + 8 + name_length]), found
                at += length

    def read_inode(self, number: int) -> _Inode:
        group, index = divmod(number - 1, self.inodes_per_group)
        descriptor = self._read((self.first_block + 1) * self.block_bytes + group * self.group_bytes, self.group_bytes)
        (table,) = struct.unpack_from("<I", descriptor, 8)
        if self.group_bytes > 32:
            table |= struct.unpack_from("<I", descriptor, 0x28)[0] << 32
        data = self._read(table * self.block_bytes + index * self.inode_bytes, self.inode_bytes)
        (mode,) = struct.unpack_from("<H", data, 0)
        (size,) = struct.unpack_from("<I", data, 4)
        (flags,) = struct.unpack_from("<I", data, 32)
        (attributes,) = struct.unpack_from("<I", data, 104)
        return _Inode(mode, size, flags, data[40:100], bool(attributes) or _has_inner_attributes(data))

    def _iter_blocks(self, inode: _Inode) -> Iterator[int]:
        if inode.flags & _HAS_EXTENTS:
            yield from self._iter_extents(inode.blocks)
            return
        count = -(-inode.size // self.block_bytes)
        yield from filter(None, islice(self._iter_mapped(struct.unpack("<15I", inode.blocks)), count))

    def _iter_mapped(self, pointers: tuple[int, ...]) -> Iterator[int]:
        """Twelve blocks, then a block of pointers. A folder of more is none that is looked at."""
        yield from pointers[:12]
        if pointers[12]:
            yield from struct.unpack(f"<{self.block_bytes // 4}I", self._read_block(pointers[12]))
        if pointers[13]:
            raise NotUnderstood

    def _iter_extents(self, data: bytes) -> Iterator[int]:
        magic, entries, _, depth = struct.unpack_from("<4H", data)
        if magic != _EXTENT_MAGIC:
            raise NotUnderstood
        for at in range(12, 12 + 12 * entries, 12):
            if depth:
                _, low, high = struct.unpack_from("<IIH", data, at)
                yield from self._iter_extents(self._read_block(low | high << 32))
            else:
                _, length, high, low = struct.unpack_from("<IHHI", data, at)
                yield from range(low | high << 32, (low | high << 32) + length)

    def _read_block(self, number: int) -> bytes:
        return self._read(number * self.block_bytes, self.block_bytes)

    def _read(self, offset: int, length: int) -> bytes:
        self.stream.seek(offset)
        data = self.stream.read(length)
        if len(data) != length:
            raise NotUnderstood
        return data


def _has_inner_attributes(data: bytes) -> bool:
    """Attributes lie behind the fields of a large inode."""
    if len(data) < _GOOD_INODE_BYTES + 4:
        return False
    (extra,) = struct.unpack_from("<H", data, _GOOD_INODE_BYTES)
    at = _GOOD_INODE_BYTES + extra
    return at + 4 <= len(data) and int.from_bytes(data[at : at + 4], "little") == _ATTRIBUTE_MAGIC
