"""Which image a layer was made for: a mark that stays with the image when it is moved or signed, and changes when it is rebuilt."""

from __future__ import annotations

import hashlib
import uuid

from .identity import ImageIdentity

# https://github.com/apptainer/sif/blob/main/pkg/sif/sif.go: the UUID stands behind launch script, magic, version, arch.
_SIF_UUID = slice(48, 64)
_HEAD_BYTES = 8192
# ext4's documentation, "Super Block": s_uuid at 0x68 of the superblock, which is at 1024.
_EXT3_UUID = slice(1024 + 0x68, 1024 + 0x78)
_SQUASHFS_SUPERBLOCK = 96


def read_fingerprint(image: ImageIdentity) -> str:
    """Return the mark of an image that `check_image` has looked at; a sandbox has its path and nothing else."""
    if image.kind == "sandbox":
        return f"sandbox:{image.real_path}"
    with open(image.real_path, "rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if image.kind == "squashfs":
        return f"squashfs:{hashlib.sha256(head[:_SQUASHFS_SUPERBLOCK]).hexdigest()[:32]}"
    own = head[_SIF_UUID if image.kind == "sif" else _EXT3_UUID]
    if any(own):
        return f"{image.kind}:{uuid.UUID(bytes=own)}"
    # A reproducible build has no UUID; its table of contents tells sizes and times.
    return f"{image.kind}:{hashlib.sha256(head).hexdigest()[:32]}"
