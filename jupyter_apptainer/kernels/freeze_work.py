"""Freezing an overlay as a task: `plan_freeze` says what shall be done, for `tasks.start_task`; `run_freeze` does it, in the worker."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..engine.locate import get_engine
from ..overlays.freeze import freeze_to_layer
from ..tasks.model import TaskSpec
from ..tasks.report import Report
from .freeze_image import Layers, freeze_image


def plan_freeze(overlay: Path, target: Path, *, image: Path | None = None, engine: str = "") -> TaskSpec:
    """Plan to make a read-only layer of an overlay, or with `image` a new image."""
    source, path = os.path.abspath(overlay), os.path.abspath(target)
    return TaskSpec(
        kind="overlay-freeze",
        title=f"freeze {Path(source).name} to {Path(path).name}",
        work=f"{__name__}:run_freeze",
        args={"overlay": source, "target": path, "image": str(image.absolute()) if image else None, "engine": engine},
        target=path,
        fingerprint=f"{source}\n{image}",
        cwd=os.getcwd(),
    )


def run_freeze(args: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Called in the worker: freeze, and return the path of what was made."""
    engine = get_engine(args["engine"] or None, places=report.places)
    source, target = args["overlay"], args["target"]
    if args["image"]:
        freeze_image(
            engine,
            report.places,
            Layers(args["image"], (source,)),
            target,
            os.environ,
            on_progress=report.begin,
            on_text=lambda _, text: report.write(text),
        )
    else:
        freeze_to_layer(engine, source, target, report.places, on_progress=report.begin)
    return {"path": target}
