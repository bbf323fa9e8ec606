"""`engine install` as a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..engine.install import install_engine
from .model import TaskSpec
from .report import Report


def plan_install(*, is_forced: bool = False) -> TaskSpec:
    """Plan to get an engine where there is none that is new enough. is_forced: in any case."""
    return TaskSpec(
        kind="engine-install",
        title="install the engine",
        work=f"{__name__}:run_install",
        args={"is_forced": is_forced},
        target="engine",
        fingerprint=str(is_forced),
    )


def run_install(args: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Called in the worker: install, and return path and version."""
    engine = install_engine(report.places, on_progress=report.begin, is_forced=args["is_forced"])
    return {"path": engine.path, "version": ".".join(map(str, engine.version))}
