"""The names in folders of a squashfs, read without any program: of a whole image a few blocks of tables are looked at.

The format: https://dr-emann.github.io/squashfs/. An image may come from anybody: each step is bounded, and what cannot be read,
for it is damaged or compressed in a way that Python's own library does not have (zstd, lzo), is an UnreadableTree.
"""

from __future__ import annotations

import lzma
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import BinaryIO

_SUPERBLOCK = struct.Struct("<4sIIIIHHHHHHQQQQQQQQ")
_HEAD = struct.Struct("<HHHHII")
_BASIC_FOLDER, _EXTENDED_FOLDER = struct.Struct("<IIHHI"), struct.Struct("<IIIIHHI")
_RUN, _ENTRY = struct.Struct("<III"), struct.Struct("<HhHH")
_BLOCK_BYTES = 8192
_STORED = 0x8000
_MAX_FOLDER_BYTES = 8 << 20
_MAX_RUN = 256
_FOLDER, _EXTENDED = 1, 8


class UnreadableTree(Exception):
    """It is damaged, or compressed in a way that is not known here."""


class SquashfsTree:
    """One squashfs, at `offset` of a file. A context manager."""

    def __init__(self, path: str, offset: int) -> None:
        self._stream: BinaryIO = open(path, "rb")  # noqa: SIM115 - closed by __exit__
        self._offset = offset
        self._blocks: dict[int, tuple[bytes, int]] = {}

    def __enter__(self) -> SquashfsTree:
        try:
            head = self._read(0, _SUPERBLOCK.size)
            fields = _SUPERBLOCK.unpack(head)
            self._unpack = _UNPACKERS[fields[5]]
        except (struct.error, KeyError, ValueError) as error:
            self._stream.close()
            raise UnreadableTree(str(error)) from error
        self._root, self._inodes, self._folders = fields[11], fields[15], fields[16]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def list_names(self, path: str) -> list[str]:
        """Return the names in a folder; none where there is no such folder. Links on the way are not followed."""
        try:
            reference = self._root
            for part in filter(None, path.split("/")):
                found = {name: place for name, place, kind in self._iter_entries(reference) if kind == _FOLDER}
                if part not in found:
                    return []
                reference = found[part]
            return [name for name, _, _ in self._iter_entries(reference)]
        except (struct.error, IndexError, ValueError, zlib.error, lzma.LZMAError) as error:
            raise UnreadableTree(str(error)) from error

    def _iter_entries(self, reference: int) -> Iterator[tuple[str, int, int]]:
        """Yield names, with the place and the kind of what they name. reference: the place of a folder."""
        text = self._find_folder(reference)
        at = 0
        while at < len(text):
            count, block, _ = _RUN.unpack_from(text, at)
            at += _RUN.size
            if count >= _MAX_RUN:
                raise ValueError("a folder has too many names in a run")
            for _ in range(count + 1):
                offset, _, kind, length = _ENTRY.unpack_from(text, at)
                at += _ENTRY.size
                name = text[at : at + length + 1]
                at += length + 1
                yield os.fsdecode(name), block << 16 | offset, kind

    def _find_folder(self, reference: int) -> bytes:
        place = self._inodes, reference >> 16, reference & 0xFFFF
        kind = _HEAD.unpack(self._read_table(*place, _HEAD.size))[0]
        if kind == _FOLDER:
            text = self._read_table(*place, _HEAD.size + _BASIC_FOLDER.size)
            block, _, size, offset, _ = _BASIC_FOLDER.unpack_from(text, _HEAD.size)
        elif kind == _EXTENDED:
            text = self._read_table(*place, _HEAD.size + _EXTENDED_FOLDER.size)
            _, size, block, _, _, offset, _ = _EXTENDED_FOLDER.unpack_from(text, _HEAD.size)
        else:
            raise ValueError("a folder is none")
        # The size counts `.` and `..`, which are not written.
        return self._read_table(self._folders, block, offset, size - 3) if size > 3 else b""

    def _read_table(self, table: int, block: int, offset: int, size: int) -> bytes:
        """Return bytes of a table."""
        if size > _MAX_FOLDER_BYTES:
            raise ValueError("a folder is too large")
        found = b""
        at = table + block
        while len(found) < offset + size:
            content, at = self._read_block(at)
            if not content:
                raise ValueError("a block is empty")
            found += content
        return found[offset : offset + size]

    def _read_block(self, at: int) -> tuple[bytes, int]:
        """Return what is in a block, and where the next one begins."""
        if at not in self._blocks:
            (head,) = struct.unpack("<H", self._read(at, 2))
            size = head & ~_STORED
            content = self._read(at + 2, size)
            self._blocks[at] = (content if head & _STORED else self._unpack(content), at + 2 + size)
        return self._blocks[at]

    def _read(self, at: int, size: int) -> bytes:
        self._stream.seek(self._offset + at)
        content = self._stream.read(size)
        if len(content) < size:
            raise ValueError("the file is cut short")
        return content


def unpack_lz4(content: bytes) -> bytes:
    """Unpack one block. https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md"""
    made = bytearray()
    at = 0
    while at < len(content):
        token = content[at]
        length, at = _read_length(content, at + 1, token >> 4)
        made += content[at : at + length]
        at += length
        if at >= len(content):
            break
        distance = content[at] | content[at + 1] << 8
        length, at = _read_length(content, at + 2, token & 15)
        if not 0 < distance <= len(made) or len(made) + length > _BLOCK_BYTES:
            raise ValueError("a block is damaged")
        for _ in range(length + 4):
            made.append(made[-distance])
    return bytes(made)


def _read_length(content: bytes, at: int, length: int) -> tuple[int, int]:
    if length == 15:
        while True:
            more = content[at]
            at += 1
            length += more
            if more != 255:
                break
    return length, at


def _unpack_zlib(content: bytes) -> bytes:
    return zlib.decompressobj().decompress(content, _BLOCK_BYTES)


def _unpack_xz(content: bytes) -> bytes:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(content, _BLOCK_BYTES)


_UNPACKERS: Mapping[int, Callable[[bytes], bytes]] = {1: _unpack_zlib, 4: _unpack_xz, 5: unpack_lz4}
