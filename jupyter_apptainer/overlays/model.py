"""An overlay on disk, and the record of ours beside it: for which image it is, and in which mode it is written to.

The record is FILE.json beside an overlay file, and overlay.json in a folder. An overlay without one is any overlay that the
engine made; it gets its record when a kernel first writes to it.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ..errors import OverlayNotFound
from .ext3 import Ext3, read_ext3

# plain: the container's files belong to the user, who can write everywhere. fakeroot: the user is root in there.
Mode = Literal["plain", "fakeroot"]
# packages: a folder of Python packages that is bound, and not mounted as a layer.
Kind = Literal["ext3", "squashfs", "folder", "packages", "unknown"]

RECORD_IN_FOLDER = "overlay.json"
_SQUASHFS_MAGIC = b"hsqs"


@dataclass(frozen=True, kw_only=True)
class OverlayRecord:
    """mode: None until it is first written to. image, fingerprint: which image it is for, empty until then.

    origin: what an automatic overlay is for, as in "kernel analysis". python: of a folder of packages, its interpreter.
    """

    mode: Mode | None = None
    image: str = ""
    fingerprint: str = ""
    created_by: str = ""
    created_at: float = 0.0
    origin: str = ""
    python: str = ""


@dataclass(frozen=True)
class Overlay:
    """An overlay as it is on disk. allocated_bytes: what it takes of the disk; a sparse file takes less than its size."""

    path: str
    kind: Kind
    size_bytes: int
    allocated_bytes: int
    ext3: Ext3 | None
    record: OverlayRecord | None

    @property
    def mode(self) -> Mode | None:
        """The mode in which it is written to, where that is known."""
        return self.record.mode if self.record else None


def new_record(*, origin: str = "") -> OverlayRecord:
    """Return the record of an overlay that is made now, by us."""
    return OverlayRecord(
        created_by=f"{getpass.getuser()}@{socket.gethostname()}", created_at=time.time(), origin=origin
    )


def load_overlay(path: str) -> Overlay:
    """Look at an overlay. Raises OverlayNotFound, and OSError where it cannot be read."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise OverlayNotFound(f"the overlay does not exist: {path}") from None
    record = load_record(path)
    if os.path.isdir(path):
        return Overlay(path, "packages" if record and record.python else "folder", 0, 0, None, record)
    ext3 = read_ext3(path)
    kind: Kind = "ext3" if ext3 else "squashfs" if _is_squashfs(path) else "unknown"
    return Overlay(path, kind, status.st_size, status.st_blocks * 512, ext3, record)


def find_record_path(path: str) -> Path:
    """Return where the record of the overlay at `path` lies."""
    return Path(path, RECORD_IN_FOLDER) if os.path.isdir(path) else Path(f"{path}.json")


def load_record(path: str) -> OverlayRecord | None:
    """Read the record of an overlay; None where there is none, or none of ours."""
    try:
        content = json.loads(find_record_path(path).read_text(encoding="utf-8"))
        if content["version"] != 1 or content["mode"] not in (None, "plain", "fakeroot"):
            return None
        return OverlayRecord(
            mode=content["mode"],
            image=str(content["image"]),
            fingerprint=str(content["fingerprint"]),
            created_by=str(content["created_by"]),
            created_at=float(content["created_at"]),
            origin=str(content["origin"]),
            python=str(content["python"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save_record(path: str, record: OverlayRecord) -> None:
    """Write the record of an overlay, readable by whoever may read the overlay. Raises OSError."""
    target = find_record_path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps({"version": 1, **asdict(record)}, indent=1), encoding="utf-8")
        temporary.chmod(os.stat(path).st_mode & 0o666)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_record(path: str) -> None:
    """Remove the record; none is no error."""
    with suppress(FileNotFoundError):
        find_record_path(path).unlink()


def _is_squashfs(path: str) -> bool:
    with open(path, "rb") as stream:
        return stream.read(4) == _SQUASHFS_MAGIC
