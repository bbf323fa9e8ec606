"""Make, copy, enlarge, check and remove overlay files. Each holds the overlay, so that no kernel uses it meanwhile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..engine.companions import find_companion, run_companion
from ..engine.environment import build_engine_environment
from ..engine.host.storage import load_disk
from ..engine.locate import EngineInfo
from ..engine.options import build_overlay_create
from ..engine.runner import Runner
from ..engine.step import OnProgress, StepError
from ..errors import DiskFull, OverlayCreateError, OverlayUnclean, SpecError
from ..instances.janitor import remove_tree
from ..places import Places
from .ext3 import MIB, read_ext3
from .holder import hold_overlay
from .model import (
    Overlay,
    OverlayRecord,
    find_record_path,
    load_overlay,
    load_record,
    new_record,
    remove_record,
    save_record,
)
from .size import format_bytes

# e2fsck(8): 1 means errors were corrected, 2 that a mounted file system should be mounted anew.
_FSCK_FINE = (0, 1, 2)
# The journal and tables of an empty overlay; a start with less than this is refused too.
NEEDED_BYTES = 80 * MIB


@dataclass(frozen=True)
class CheckResult:
    """was_clean: nothing had to be repaired. report: what e2fsck said, last lines."""

    was_clean: bool
    report: tuple[str, ...]


def create_overlay(
    engine: EngineInfo, path: str, size_mib: int, environ: Mapping[str, str], *, record: OverlayRecord | None = None
) -> Overlay:
    """Make an ext3 overlay that takes only the space it uses. Raises OverlayCreateError, DiskFull."""
    _check_target(path)
    check_disk(path)
    try:
        Runner().run(build_overlay_create(engine, path, size_mib, build_engine_environment(environ)))
        _give_all_space(engine, path)
    except BaseException:
        _unlink(path)
        raise
    save_record(path, record or new_record())
    return load_overlay(path)


def copy_overlay(source: str, target: str, places: Places) -> Overlay:
    """Copy an overlay file with its record; holes stay holes. Raises OverlayBusy while a kernel writes to it."""
    _check_target(target)
    if os.path.isdir(source):
        raise SpecError(f"{source} is a folder", hint=f"copy it with `cp -a {source} {target}`")
    overlay = load_overlay(source)
    check_disk(target, overlay.allocated_bytes)
    with hold_overlay(source, places, for_writing=False):
        try:
            _copy_sparse(source, target)
            shutil.copymode(source, target)
        except BaseException:
            _unlink(target)
            raise
    if overlay.record:
        save_record(target, replace(overlay.record, origin="", created_at=new_record().created_at))
    return load_overlay(target)


def grow_overlay(
    engine: EngineInfo, path: str, size_mib: int, places: Places, *, on_progress: OnProgress = lambda _: None
) -> Overlay:
    """Enlarge an ext3 overlay to `size_mib`; what is in it stays. Raises SpecError for a smaller size, OverlayUnclean."""
    get_ext3_overlay(path)
    with hold_overlay(path, places, for_writing=True):
        old = os.path.getsize(path)
        if size_mib * MIB <= old:
            raise SpecError(f"{path} has {format_bytes(old)} already, and an overlay is never made smaller")
        on_progress(f"Checking {path}")
        _run_fsck(engine, path)
        on_progress(f"Enlarging it to {format_bytes(size_mib * MIB)}")
        os.truncate(path, size_mib * MIB)
        try:
            run_companion(engine, ("resize2fs", path), f"enlarge {path}")
        except StepError as failure:
            raise OverlayUnclean(
                f"the overlay {path} could not be enlarged: {failure.reason}",
                hint=f"its content is as before; look at it with `jupyter apptainer overlay check {path}`",
                log_tail=failure.log_tail,
            ) from failure
        _give_all_space(engine, path)
    return load_overlay(path)


def check_overlay_file(
    engine: EngineInfo, path: str, places: Places, *, on_progress: OnProgress = lambda _: None
) -> CheckResult:
    """Check an ext3 overlay and repair it where needed. Raises OverlayUnclean where that did not help."""
    get_ext3_overlay(path)
    with hold_overlay(path, places, for_writing=True):
        on_progress(f"Checking {path}")
        return _run_fsck(engine, path)


def remove_overlay(path: str, places: Places) -> None:
    """Delete an overlay and its record. Raises OverlayBusy while it is in use, SpecError for what is no overlay."""
    overlay = load_overlay(path)
    if overlay.kind == "packages":
        remove_tree(path)
        return
    if overlay.kind == "folder":
        raise SpecError(f"{path} is a folder that was not made here", hint=f"delete it yourself: `rm -r {path}`")
    if overlay.record is None and overlay.kind not in ("ext3", "squashfs"):
        raise SpecError(f"{path} is no overlay, and is left alone")
    with hold_overlay(path, places, for_writing=os.access(path, os.W_OK)):
        os.unlink(path)
    remove_record(path)


def check_disk(path: str, wanted_bytes: int = NEEDED_BYTES) -> None:
    """Raise DiskFull where the disk of `path` has less than `wanted_bytes` left."""
    disk = load_disk(Path(_parent(path)))
    if disk.free_bytes < wanted_bytes:
        raise DiskFull(
            f"the disk of {path} has {format_bytes(disk.free_bytes)} left, and {format_bytes(wanted_bytes)} are needed",
            hint="free some space, or keep the overlay on a larger disk",
        )


def get_ext3_overlay(path: str) -> Overlay:
    """Return an overlay that is an ext3 image. Raises SpecError for one of another kind."""
    overlay = load_overlay(path)
    if overlay.kind != "ext3":
        what = (
            "a folder" if os.path.isdir(path) else "a read-only layer" if overlay.kind == "squashfs" else "no overlay"
        )
        raise SpecError(f"{path} is {what}; this needs an ext3 overlay, as `overlay create` makes it")
    return overlay


def _run_fsck(engine: EngineInfo, path: str) -> CheckResult:
    found = read_ext3(path)
    try:
        done = run_companion(engine, ("e2fsck", "-f", "-y", path), f"check {path}", ok_codes=_FSCK_FINE)
    except StepError as failure:
        raise OverlayUnclean(
            f"the overlay {path} could not be repaired: {failure.reason}",
            hint=f"a copy of an earlier time is the surest way; `debugfs {path}` may still read what is in it",
            log_tail=failure.log_tail,
        ) from failure
    lines = tuple(line for line in done.stdout.splitlines() if line.strip())
    return CheckResult(was_clean=done.returncode == 0 and bool(found and found.is_clean), report=lines[-8:])


def _give_all_space(engine: EngineInfo, path: str) -> None:
    """Leave one block for root alone. mkfs leaves five in a hundred, and fuse2fs takes none at all to mean ten in a hundred."""
    if find_companion(engine, "tune2fs"):
        run_companion(engine, ("tune2fs", "-r", "1", path), f"set up {path}")


def _check_target(path: str) -> None:
    if os.path.lexists(path):
        raise OverlayCreateError(f"{path} exists already", hint="use it, or choose another name")
    if not os.path.isdir(_parent(path)):
        raise OverlayCreateError(f"there is no folder {_parent(path)}", hint="create it first")
    record = find_record_path(path)
    # One of ours is that of an overlay deleted by hand, and is replaced.
    if os.path.lexists(record) and not load_record(path):
        raise OverlayCreateError(
            f"{record} is in the way: the overlay's record would be there", hint="choose another name"
        )


def _parent(path: str) -> str:
    return os.path.dirname(os.path.abspath(path))


def _unlink(path: str) -> None:
    if os.path.exists(path):
        os.unlink(path)


def _copy_sparse(source: str, target: str) -> None:
    """Copy the parts of a file that have content (lseek(2), SEEK_DATA)."""
    with open(source, "rb") as reader, open(target, "xb") as writer:
        size = os.fstat(reader.fileno()).st_size
        position = 0
        while position < size:
            try:
                start = os.lseek(reader.fileno(), position, os.SEEK_DATA)
            except OSError:
                # Nothing but a hole up to the end.
                break
            end = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
            position = start
            os.lseek(writer.fileno(), start, os.SEEK_SET)
            while position < end:
                count = os.sendfile(writer.fileno(), reader.fileno(), position, min(end - position, 1 << 30))
                if count == 0:
                    break
                position += count
        writer.truncate(size)
