"""Look at an image on the host, without the engine: is it there, is it an image, is it whole, which one is it?

Costs one `stat` and, for a SIF, 128 bytes and its table of contents; so every start can afford it.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from ..errors import ImageCorrupt, ImageInvalid, ImageNotFound

ImageKind = Literal["sif", "sandbox", "squashfs", "ext3"]

# https://github.com/apptainer/sif/blob/main/pkg/sif/sif.go: launch script, magic, version, arch, uuid, then eight int64.
_MAGIC = b"SIF_MAGIC\0"
_MAGIC_OFFSET = 32
_NUMBERS_OFFSET = 64
_NUMBERS = struct.Struct("<8q")
_HEADER_SIZE = _NUMBERS_OFFSET + _NUMBERS.size
_DESCRIPTOR_SIZE = 585
_DESCRIPTOR = struct.Struct("<i?III2q")
_MAX_DESCRIPTORS = 4096

# Bare file systems, which the engine runs as well. Squashfs: bytes used, at 40. Ext3: superblock at 1024, in it the
# number of blocks, the logarithm of their size, and the magic number.
_SQUASHFS_MAGIC = b"hsqs"
_EXT3_SUPERBLOCK = 1024
_EXT3_MAGIC = 0xEF53

_SANDBOX_MARKS = (".singularity.d", "bin/sh", "usr/bin/sh")
_URI = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class ImageIdentity:
    """Which image this is: the same values mean the same content.

    real_path: without links. size_bytes: 0 for a sandbox.
    """

    path: str
    kind: ImageKind
    real_path: str
    size_bytes: int
    mtime_ns: int
    inode: int

    @property
    def key(self) -> str:
        """One line that differs where the image does."""
        return f"{self.real_path}:{self.size_bytes}:{self.mtime_ns}:{self.inode}"


def check_image(path: str) -> ImageIdentity:
    """Check that a kernel could run in the image at `path`, as far as the host can tell.

    Raises ImageNotFound, ImageInvalid (not an image, or not readable) or ImageCorrupt (cut short).
    """
    if _URI.match(path):
        raise ImageNotFound(
            f"the image {path} is not a file of this machine",
            hint=f"fetch it once: `jupyter apptainer image pull {path}`",
        )
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise ImageNotFound(f"there is no image {path}", hint=_near(path)) from None
    except OSError as error:
        raise ImageInvalid(
            f"the image {path} is out of reach: {error.strerror}",
            hint="check the permissions of its folders, and that its disk is mounted",
        ) from error
    real_path = os.path.realpath(path)
    if stat.S_ISDIR(status.st_mode):
        _check_sandbox(path)
        return ImageIdentity(path, "sandbox", real_path, 0, status.st_mtime_ns, status.st_ino)
    if not stat.S_ISREG(status.st_mode):
        raise ImageInvalid(f"{path} is neither a file nor a folder")
    kind = _check_file(path, status.st_size)
    return ImageIdentity(path, kind, real_path, status.st_size, status.st_mtime_ns, status.st_ino)


def _check_sandbox(path: str) -> None:
    if not os.access(path, os.R_OK | os.X_OK):
        raise ImageInvalid(f"the folder {path} cannot be read", hint="check its permissions")
    if not any(os.path.lexists(os.path.join(path, mark)) for mark in _SANDBOX_MARKS):
        raise ImageInvalid(f"the folder {path} is not an image: it has neither .singularity.d nor bin/sh")


def _check_file(path: str, size: int) -> ImageKind:
    """Tell the kind of the image by its first bytes, and check that it ends where it says."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(_EXT3_SUPERBLOCK + 64)
            kind, expected = _measure(path, head)
            if kind == "sif" and expected <= size:
                expected = _measure_sif(stream, head)
    except OSError as error:
        raise ImageInvalid(
            f"the image {path} cannot be read: {error.strerror}", hint="check its permissions"
        ) from error
    if size < expected:
        raise ImageCorrupt(
            f"the image {path} is cut short: it has {size} bytes and should have {expected}",
            hint="its copy or download was interrupted: fetch or build it again",
        )
    return kind


def _measure(path: str, head: bytes) -> tuple[ImageKind, int]:
    """Return the kind of an image, and how many bytes it must have at least, from its first bytes."""
    if head.startswith(_MAGIC, _MAGIC_OFFSET):
        if len(head) < _HEADER_SIZE:
            return "sif", _HEADER_SIZE
        _, _, free, total, offset, _, _, _ = _NUMBERS.unpack_from(head, _NUMBERS_OFFSET)
        if not 0 < total <= _MAX_DESCRIPTORS or not 0 <= free <= total or offset < _HEADER_SIZE:
            raise ImageCorrupt(f"the image {path} has a damaged header")
        return "sif", offset + total * _DESCRIPTOR_SIZE
    if head.startswith(_SQUASHFS_MAGIC) and len(head) >= 48:
        return "squashfs", int(struct.unpack_from("<Q", head, 40)[0])
    if len(head) == _EXT3_SUPERBLOCK + 64:
        blocks, exponent, magic = struct.unpack_from("<4xI16xI28xH", head, _EXT3_SUPERBLOCK)
        if magic == _EXT3_MAGIC and exponent < 8:
            return "ext3", blocks * (1024 << exponent)
    raise ImageInvalid(f"the file {path} is not an image" + _describe(head))


def _measure_sif(stream: BinaryIO, head: bytes) -> int:
    """Return the offset behind the last byte of all objects in a SIF."""
    _, _, _, total, offset, _, _, _ = _NUMBERS.unpack_from(head, _NUMBERS_OFFSET)
    stream.seek(offset)
    table = stream.read(total * _DESCRIPTOR_SIZE)
    end = 0
    for start in range(0, len(table) - _DESCRIPTOR_SIZE + 1, _DESCRIPTOR_SIZE):
        _, is_used, _, _, _, position, length = _DESCRIPTOR.unpack_from(table, start)
        if is_used:
            end = max(end, position + length)
    return end


def _describe(head: bytes) -> str:
    if not head:
        return ": it is empty"
    if head.lower().startswith(b"bootstrap"):
        return ": it is a definition file, from which `apptainer build` makes one"
    return ""


def _near(path: str) -> str | None:
    """Name what was probably meant: the nearest name in the folder, or the first folder that does not exist."""
    target = Path(os.path.abspath(path))
    folder = target.parent
    if folder.is_dir():
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            return None
        near = difflib.get_close_matches(target.name, names, n=1, cutoff=0.5)
        return f"did you mean {folder / near[0]}?" if near else None
    while not folder.is_dir():
        missing, folder = folder, folder.parent
    return f"the folder {missing} does not exist"
