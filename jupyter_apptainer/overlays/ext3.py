"""The superblock of an ext3 image, read without any program: size, what is free, and whether it was closed properly.

https://docs.kernel.org/filesystems/ext4/super.html; offsets are from the superblock, which lies at 1024.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MIB = 1 << 20
_OFFSET = 1024
_MAGIC = 0xEF53
# s_inodes_count, s_blocks_count, s_r_blocks_count, s_free_blocks_count, s_free_inodes_count, s_log_block_size at 24;
# s_magic and s_state at 56; s_feature_incompat at 96.
_COUNTS = struct.Struct("<5I4xI")
_MAGIC_AND_STATE = struct.Struct("<HH")
_CLEAN, _HAS_ERRORS = 1, 2
_NEEDS_RECOVERY = 4


@dataclass(frozen=True)
class Ext3:
    """What the superblock says. While a kernel writes, the counts are a moment old.

    is_clean: it was unmounted properly and no error was seen; False also while it is mounted for writing.
    """

    block_bytes: int
    blocks: int
    free_blocks: int
    inodes: int
    free_inodes: int
    is_clean: bool

    @property
    def size_bytes(self) -> int:
        """The size of the file system."""
        return self.blocks * self.block_bytes

    @property
    def free_bytes(self) -> int:
        """What can still be written."""
        return self.free_blocks * self.block_bytes

    @property
    def used_fraction(self) -> float:
        """How full it is, from 0 to 1: by space or by number of files, whichever is nearer to its end."""
        return 1 - min(self.free_blocks / max(self.blocks, 1), self.free_inodes / max(self.inodes, 1))


def read_ext3(path: str) -> Ext3 | None:
    """Read the superblock of the image at `path`; None where it is no ext file system. Raises OSError."""
    with open(path, "rb") as stream:
        stream.seek(_OFFSET)
        block = stream.read(_OFFSET)
    if len(block) < _OFFSET:
        return None
    magic, state = _MAGIC_AND_STATE.unpack_from(block, 56)
    inodes, blocks, _, free_blocks, free_inodes, exponent = _COUNTS.unpack_from(block)
    if magic != _MAGIC or exponent > 6:
        return None
    (incompatible,) = struct.unpack_from("<I", block, 96)
    return Ext3(
        block_bytes=1024 << exponent,
        blocks=blocks,
        free_blocks=free_blocks,
        inodes=inodes,
        free_inodes=free_inodes,
        is_clean=bool(state & _CLEAN) and not state & _HAS_ERRORS and not incompatible & _NEEDS_RECOVERY,
    )
