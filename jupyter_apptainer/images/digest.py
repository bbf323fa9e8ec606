"""The SHA-256 of an image's file: which image it is, wherever it lies.

Computed once for each file and kept by what changes with its content; the time of the last change of status cannot be set back.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import CommandError, ImageInvalid, ImageMismatch
from ..places import Places, make_private_dir, write_private_file
from .identity import check_image

_BLOCK = 1 << 20
_SHOWN = 12


def compute_digest(path: str, places: Places) -> str:
    """Return the SHA-256 of the image file at `path`, 64 lower-case digits. Reads the whole file the first time.

    Raises what `check_image` does; ImageInvalid for a folder, and for a file that changes while it is read.
    """
    identity = check_image(path)
    if identity.kind == "sandbox":
        raise ImageInvalid(f"{path} is a folder, which has no digest", hint="build a .sif file of it")
    with open(identity.real_path, "rb") as stream:
        key = _key(os.fstat(stream.fileno()))
        known = _load(key, places)
        if known:
            return known
        digest = hashlib.sha256()
        while block := stream.read(_BLOCK):
            digest.update(block)
        if _key(os.fstat(stream.fileno())) != key:
            raise ImageInvalid(f"the image {path} changed while it was read", hint="try again when it is complete")
    found = digest.hexdigest()
    _save(key, found, places)
    return found


def find_known_digest(path: str, places: Places) -> str | None:
    """Return the SHA-256 of an image file where it was computed before; nothing is read."""
    try:
        return _load(_key(os.stat(path)), places)
    except OSError:
        return None


def check_digest(path: str, digest: str, places: Places) -> None:
    """Check that the file at `path` has this SHA-256. Raises ImageMismatch, and what `compute_digest` does."""
    found = compute_digest(path, places)
    if found != digest:
        raise ImageMismatch(
            f"the image {path} is another one than was asked for: its digest is sha256:{found}, not sha256:{digest}"
        )


def find_by_digest(digest: str, candidates: Iterable[str], places: Places) -> str | None:
    """Return the first of the files `candidates` that has this SHA-256; those that are not images are passed over."""
    for path in candidates:
        try:
            if compute_digest(path, places) == digest:
                return path
        except (CommandError, OSError):
            continue
    return None


def shorten(digest: str) -> str:
    """Return the digest for people."""
    return f"sha256:{digest[:_SHOWN]}…"


def _key(status: os.stat_result) -> str:
    numbers = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return ":".join(map(str, numbers))


def _path(key: str, places: Places) -> Path:
    return places.probes / f"digest-{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def _load(key: str, places: Places) -> str | None:
    try:
        record = json.loads(_path(key, places).read_text(encoding="utf-8"))
        return str(record["sha256"]) if record["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _save(key: str, digest: str, places: Places) -> None:
    try:
        make_private_dir(places.probes)
        write_private_file(_path(key, places), json.dumps({"key": key, "sha256": digest}))
    except OSError:
        # A cache that cannot be written only costs time.
        return
