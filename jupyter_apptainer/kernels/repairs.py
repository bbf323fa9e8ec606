"""What can be done about a start that failed, and doing it: from the error and the wish to actions that a front end offers.

An action is found by looking at what the kernel asked for, never read from the error's text; who offers one and who does it see the same list.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .. import errors as e
from ..engine.locate import get_engine
from ..images.records import iter_records
from ..overlays.holder import find_holder, is_locked
from ..overlays.manage import check_overlay_file, create_overlay, grow_overlay
from ..overlays.model import new_record
from ..places import Places
from .spec import ContainerSpec, is_uri

RepairKind: TypeAlias = Literal[
    "pull-image",
    "install-engine",
    "create-overlay",
    "check-overlay",
    "grow-overlay",
    "end-holder",
    "make-folder",
]
_NEW_MIB = 1024
_MIB = 2**20
_BAD_IMAGE = (e.ImageNotFound, e.ImageInvalid, e.ImageCorrupt, e.ImageMismatch)


@dataclass(frozen=True)
class Repair:
    """One action. subject: what it is done to (a file, an instance); source: where it comes from (a URI). detail: for people."""

    kind: RepairKind
    subject: str = ""
    source: str = ""
    detail: str = ""


def find_repairs(error: e.ApptainerError, wish: ContainerSpec | None, places: Places) -> tuple[Repair, ...]:
    """Return what may help, the best first; empty where nobody but the person can tell. wish: None where it cannot be read."""
    found: list[Repair] = []
    if isinstance(error, e.EngineNotFound | e.EngineTooOld):
        found.append(Repair("install-engine"))
    elif wish is not None and isinstance(error, _BAD_IMAGE):
        found += _find_image(wish, places)
    elif wish is not None and isinstance(error, e.BindSourceNotFound):
        found += [Repair("make-folder", bind.source) for bind in wish.binds if not os.path.exists(bind.source)]
    elif wish is not None:
        found += _find_overlays(error, wish, places)
    return tuple(found)


def _find_image(wish: ContainerSpec, places: Places) -> Iterator[Repair]:
    if is_uri(wish.image):
        yield Repair("pull-image", source=wish.image)
        return
    path = os.path.abspath(wish.image)
    # Its file is gone or not what it was, so a record of it is not current any more.
    record = next((record for record in iter_records(places) if record.path == path), None)
    if record is not None:
        yield Repair("pull-image", path, record.uri)


def _find_overlays(error: e.ApptainerError, wish: ContainerSpec, places: Places) -> Iterator[Repair]:
    for overlay in wish.overlays:
        path = overlay.path
        if not path:
            continue
        is_there = os.path.isfile(path)
        if isinstance(error, e.OverlayNotFound) and not os.path.lexists(path) and not overlay.is_read_only:
            yield Repair("create-overlay", path)
        elif isinstance(error, e.OverlayUnclean) and is_there and path in error.message:
            yield Repair("check-overlay", path)
        elif isinstance(error, e.OverlayFull) and is_there and path in error.message:
            yield Repair("grow-overlay", path)
        elif isinstance(error, e.OverlayBusy) and is_there and is_locked(path, for_writing=not overlay.is_read_only):
            holder = find_holder(path, places)
            if holder is not None and holder.instance is not None:
                yield Repair("end-holder", holder.instance, detail=holder.label or "")


def do_repair(repair: Repair, places: Places, environ: Mapping[str, str], *, engine_path: str | None = None) -> None:
    """Do what takes no longer than a request may; the rest is for tasks and for the server. Blocking.

    Raises the ApptainerError that says why it did not work.
    """
    match repair.kind:
        case "make-folder":
            _make_folder(repair.subject)
        case "create-overlay":
            engine = get_engine(engine_path, places=places)
            create_overlay(engine, repair.subject, _NEW_MIB, environ, record=new_record())
        case "check-overlay":
            check_overlay_file(get_engine(engine_path, places=places), repair.subject, places)
        case "grow-overlay":
            size_mib = os.path.getsize(repair.subject) // _MIB + _NEW_MIB
            grow_overlay(get_engine(engine_path, places=places), repair.subject, size_mib, places)
        case other:
            raise ValueError(f"{other} is not done here")


def _make_folder(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise e.BindInvalid(
            f"the folder {path} could not be made: {error.strerror}", hint="make it yourself, or remove the bind"
        ) from error
