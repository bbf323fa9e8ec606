"""An overlay as it is found now: what it is, how full, who uses it. For lists, and for programs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..places import Places
from .holder import find_holder, is_locked, needs_check
from .model import Overlay, OverlayRecord, load_overlay
from .ready import describe_fullness


@dataclass(frozen=True, kw_only=True)
class OverlayStatus:
    """kind: "-" where there is no file. state: ready, in use, not closed properly, not made yet, missing, or no overlay.

    holder: who uses it. used_fraction: from 0 to 1, of space or of files. warning: where it is nearly full. kernels: names of
    kernelspecs. The rest is as in `Overlay` and in its record.
    """

    path: str
    kind: str
    state: str
    holder: str | None
    size_bytes: int | None
    allocated_bytes: int | None
    free_bytes: int | None
    free_inodes: int | None
    used_fraction: float | None
    warning: str | None
    mode: str | None
    image: str
    origin: str
    created_by: str
    created_at: float
    kernels: tuple[str, ...]


def observe_overlay(path: str, places: Places, kernels: tuple[str, ...] = ()) -> OverlayStatus:
    """Look at the overlay at `path`, which need not exist. Raises OSError where it cannot be read."""
    if not os.path.exists(path):
        is_automatic = Path(path).parent == places.overlays
        return _build_status(path, None, kernels, state="not made yet" if is_automatic else "missing")
    overlay = load_overlay(path)
    is_used = not os.path.isdir(path) and is_locked(path, for_writing=os.access(path, os.W_OK))
    holder = find_holder(path, places) if is_used else None
    state = "in use" if is_used else "ready"
    if overlay.kind == "unknown":
        state = "no overlay"
    elif needs_check(path, overlay.ext3):
        state = "not closed properly"
    return _build_status(path, overlay, kernels, state=state, holder=holder.describe() if holder else None)


def _build_status(
    path: str, overlay: Overlay | None, kernels: tuple[str, ...], *, state: str, holder: str | None = None
) -> OverlayStatus:
    ext3 = overlay.ext3 if overlay else None
    record = (overlay.record if overlay else None) or OverlayRecord()
    return OverlayStatus(
        path=path,
        kind=overlay.kind if overlay else "-",
        state=state,
        holder=holder,
        size_bytes=overlay.size_bytes if overlay else None,
        allocated_bytes=overlay.allocated_bytes if overlay else None,
        free_bytes=ext3.free_bytes if ext3 else None,
        free_inodes=ext3.free_inodes if ext3 else None,
        used_fraction=round(ext3.used_fraction, 4) if ext3 else None,
        warning=describe_fullness(overlay) if overlay else None,
        mode=record.mode,
        image=record.image,
        origin=record.origin,
        created_by=record.created_by,
        created_at=record.created_at,
        kernels=kernels,
    )
