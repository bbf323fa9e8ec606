"""What is done about an overlay before a kernel starts with it: everything that would end in a riddle later is seen to here.

`look_at_overlay` only looks; `make_ready` also frees it from the dead, repairs it, and settles its mode.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..engine.host.storage import load_disk
from ..engine.locate import EngineInfo
from ..errors import (
    DiskFull,
    ImageInvalid,
    OverlayImageMismatch,
    OverlayModeMismatch,
    OverlayReadOnly,
    OverlayUnclean,
)
from ..places import Places
from .ext3 import MIB
from .holder import explain_busy, find_holder, free_overlay, is_locked, needs_check
from .manage import check_overlay_file
from .mode import choose_mode
from .model import Mode, Overlay, OverlayRecord, load_overlay, new_record, save_record
from .size import format_bytes

FULL_WARNING = 0.85
# With less than this, the first write of a kernel would tear the file system of a sparse overlay.
LEAST_FREE_BYTES = 32 * MIB


@dataclass(frozen=True)
class ImageMark:
    """Which image an overlay is to be used with: its path, and what `read_fingerprint` says of it."""

    path: str
    fingerprint: str


@dataclass(frozen=True)
class ReadyOverlay:
    """An overlay that can be mounted. notes: sentences for the log: what was done about it, and what will soon be needed."""

    overlay: Overlay
    mode: Mode
    notes: tuple[str, ...]


def look_at_overlay(
    path: str, places: Places, *, is_read_only: bool, image: ImageMark | None = None, wanted: Mode | None = None
) -> Overlay:
    """Check that a kernel could start with the overlay, as far as looking tells. Changes nothing.

    wanted: the mode that the kernel insists on. Raises OverlayNotFound, OverlayBusy, OverlayImageMismatch, OverlayModeMismatch.
    """
    overlay = load_overlay(path)
    if overlay.kind == "unknown":
        raise ImageInvalid(f"{path} is no overlay image", hint="make one: `jupyter apptainer overlay create FILE`")
    if overlay.kind == "squashfs" and not is_read_only:
        raise OverlayReadOnly(f"{path} is a layer that can only be read", hint=f"say so: `{shlex.quote(path)}:ro`")
    _check_record(overlay, image, wanted, is_read_only=is_read_only)
    if not os.path.isdir(path) and is_locked(path, for_writing=not is_read_only):
        holder = find_holder(path, places)
        # A holder whose owner is gone is ended when a kernel starts.
        if holder is None or holder.is_alive:
            raise explain_busy(path, holder)
    return overlay


def make_ready(
    engine: EngineInfo,
    path: str,
    image: ImageMark,
    places: Places,
    environ: Mapping[str, str],
    *,
    is_read_only: bool,
    wanted: Mode | None = None,
) -> ReadyOverlay:
    """See to it that a kernel of `image` can start with the overlay. Blocking; the first time, it asks the image.

    Raises what `look_at_overlay` does, OverlayUnclean, DiskFull, and OverlayReadOnly where this user could not write at all.
    """
    overlay = look_at_overlay(path, places, is_read_only=is_read_only, image=image, wanted=wanted)
    notes: list[str] = []
    if overlay.kind in ("ext3", "squashfs"):
        freed = free_overlay(path, places, for_writing=not is_read_only)
        notes += [freed] if freed else []
    if overlay.kind == "ext3":
        # Freeing it may have closed it properly.
        overlay = _repair(engine, load_overlay(path), places, notes)
        if not is_read_only:
            _check_space(overlay, notes)
    if is_read_only:
        return ReadyOverlay(overlay, "plain", tuple(notes))
    mode = overlay.mode or wanted or choose_mode(engine, image.path, environ)
    _remember(overlay, image, mode)
    return ReadyOverlay(overlay, mode, tuple(notes))


def adopt_image(path: str, image: ImageMark) -> None:
    """Note that the overlay is for `image` from now on."""
    record = load_overlay(path).record or new_record()
    save_record(path, replace(record, image=image.path, fingerprint=image.fingerprint))


def describe_fullness(overlay: Overlay) -> str | None:
    """Return a warning where the overlay is nearly full."""
    if overlay.ext3 is None or overlay.ext3.used_fraction < FULL_WARNING:
        return None
    left = format_bytes(overlay.ext3.free_bytes)
    return (
        f"the overlay {overlay.path} is {overlay.ext3.used_fraction * 100:.0f} % full, {left} are left: enlarge it while "
        f"nothing uses it, `jupyter apptainer overlay grow {shlex.quote(overlay.path)} +2G`"
    )


def _check_record(overlay: Overlay, image: ImageMark | None, wanted: Mode | None, *, is_read_only: bool) -> None:
    record = overlay.record
    if record is None:
        return
    name = shlex.quote(overlay.path)
    if image and record.fingerprint and record.fingerprint != image.fingerprint:
        is_rebuilt = os.path.realpath(record.image) == os.path.realpath(image.path)
        what = "an earlier build of that image" if is_rebuilt else record.image
        raise OverlayImageMismatch(
            f"the overlay {overlay.path} belongs to another image: it was made above {what}, and not above {image.path}",
            hint=f"use it with its own image, or make another one (`jupyter apptainer overlay create FILE`); where you know "
            f"that they fit: `jupyter apptainer overlay check {name} --image {shlex.quote(image.path)}`",
        )
    if not is_read_only and wanted and record.mode and record.mode != wanted:
        raise OverlayModeMismatch(
            f"the overlay {overlay.path} is written to {_MODES[record.mode]}, and this kernel wants {_MODES[wanted]}",
            hint=f"leave the choice to the overlay (no --fakeroot in extra_flags), use it read-only (`{name}:ro`), "
            "or make another one for this kernel: `jupyter apptainer overlay create FILE`",
        )


_MODES: Mapping[Mode, str] = {"plain": "without --fakeroot", "fakeroot": "with --fakeroot"}


def _repair(engine: EngineInfo, overlay: Overlay, places: Places, notes: list[str]) -> Overlay:
    if not needs_check(overlay.path, overlay.ext3):
        return overlay
    if not os.access(overlay.path, os.W_OK):
        raise OverlayUnclean(
            f"the overlay {overlay.path} was not closed properly, and only its owner can repair it",
            hint=f"ask them for `jupyter apptainer overlay check {shlex.quote(overlay.path)}`",
        )
    result = check_overlay_file(engine, overlay.path, places)
    notes.append(f"the overlay {overlay.path} was not closed properly: checked and repaired ({result.report[-1]})")
    return load_overlay(overlay.path)


def _check_space(overlay: Overlay, notes: list[str]) -> None:
    """Refuse where the host's disk is about to run out under a sparse overlay; warn where it might, or where it is full itself."""
    full = describe_fullness(overlay)
    notes += [full] if full else []
    missing = overlay.size_bytes - overlay.allocated_bytes
    if missing <= 0:
        return
    disk = load_disk(Path(overlay.path).absolute().parent)
    if disk.free_bytes < LEAST_FREE_BYTES:
        raise DiskFull(
            f"the disk of the overlay {overlay.path} has {format_bytes(disk.free_bytes)} left: writing to it would damage it",
            hint=f"free some space on that disk, or use the overlay read-only: `{shlex.quote(overlay.path)}:ro`",
        )
    if disk.free_bytes < missing:
        notes.append(
            f"the overlay {overlay.path} may grow by {format_bytes(missing)}, and its disk has {format_bytes(disk.free_bytes)} left"
        )


def _remember(overlay: Overlay, image: ImageMark, mode: Mode) -> None:
    record = overlay.record or OverlayRecord()
    known = replace(
        record,
        mode=mode,
        image=record.image or image.path,
        fingerprint=record.fingerprint or image.fingerprint,
    )
    if known != overlay.record:
        # Somebody else's folder: then it stays without one, as overlays of the engine are.
        with suppress(PermissionError):
            save_record(overlay.path, known)
