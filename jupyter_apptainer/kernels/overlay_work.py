"""Overlays as tasks: `plan_…` says what shall be done, for `tasks.start_task`; `run_…` does it, in the worker.

A check reads the whole overlay, and a copy writes it: on a network's disk that takes minutes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..engine.locate import EngineInfo, get_engine
from ..overlays.manage import check_overlay_file, copy_overlay, create_overlay, grow_overlay
from ..overlays.model import Overlay, new_record
from ..tasks.model import TaskSpec
from ..tasks.report import Report
from .overlays import mark_image


def create_for_image(
    engine: EngineInfo, path: str, size_mib: int, image: str | None, environ: Mapping[str, str]
) -> Overlay:
    """Make an overlay that belongs to an image, or without one to that of the first kernel that uses it."""
    record = new_record()
    if image:
        mark = mark_image(image)
        record = replace(record, image=mark.path, fingerprint=mark.fingerprint)
    return create_overlay(engine, path, size_mib, environ, record=record)


def plan_create(path: Path, size_mib: int, *, image: Path | None = None, engine: str = "") -> TaskSpec:
    """Plan to make an overlay, for an image or for that of the first kernel that uses it."""
    args = {"size_mib": size_mib, "image": str(image.absolute()) if image else None}
    return _plan("create", f"make {path.name}", path, args, engine)


def plan_copy(source: Path, path: Path) -> TaskSpec:
    """Plan to copy an overlay that no kernel writes to."""
    return _plan("copy", f"copy {source.name} to {path.name}", path, {"source": os.path.abspath(source)}, "")


def plan_grow(path: Path, size_mib: int, *, engine: str = "") -> TaskSpec:
    """Plan to enlarge an overlay; what is in it stays."""
    return _plan("grow", f"enlarge {path.name}", path, {"size_mib": size_mib}, engine)


def plan_check(path: Path, *, engine: str = "") -> TaskSpec:
    """Plan to check an overlay, and to repair what a crash has left."""
    return _plan("check", f"check {path.name}", path, {}, engine)


def _plan(verb: str, title: str, path: Path, args: Mapping[str, Any], engine: str) -> TaskSpec:
    target = os.path.abspath(path)
    return TaskSpec(
        kind=f"overlay-{verb}",
        title=title,
        work=f"{__name__}:run_{verb}",
        args={"path": target, **args, "engine": engine},
        target=target,
        fingerprint=json.dumps([verb, args], sort_keys=True),
    )


def run_create(args: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Called in the worker: make it, and return its path."""
    report.begin(f"Making {args['path']}")
    create_for_image(_get_engine(args, report), args["path"], args["size_mib"], args["image"], os.environ)
    return {"path": args["path"]}


def run_copy(args: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Called in the worker: copy it, and return the copy's path."""
    report.begin(f"Copying {args['source']}")
    copy_overlay(args["source"], args["path"], report.places)
    return {"path": args["path"]}


def run_grow(args: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Called in the worker: enlarge it, and return its path and size."""
    engine = _get_engine(args, report)
    grown = grow_overlay(engine, args["path"], args["size_mib"], report.places, on_progress=report.begin)
    return {"path": args["path"], "size_bytes": grown.size_bytes}


def run_check(args: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Called in the worker: check it, and return its path and whether nothing had to be repaired."""
    checked = check_overlay_file(_get_engine(args, report), args["path"], report.places, on_progress=report.begin)
    report.write("".join(f"{line}\n" for line in checked.report))
    return {"path": args["path"], "was_clean": checked.was_clean}


def _get_engine(args: Mapping[str, Any], report: Report) -> EngineInfo:
    return get_engine(args["engine"] or None, places=report.places)
