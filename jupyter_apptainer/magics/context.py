"""What the commands of a cell work with: the engine, our folders, the environment that a terminal beside the notebook would have."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ..config import ApptainerConfig, load_config
from ..engine.locate import EngineInfo, get_engine
from ..places import Places, find_places
from .manual import Manual


@dataclass(frozen=True)
class Context:
    """manual: what the engine knows about its own commands."""

    engine: EngineInfo
    places: Places
    manual: Manual

    @property
    def environ(self) -> dict[str, str]:
        """The variables as they are now: a cell may have set some."""
        return build_terminal_environment(os.environ)


def find_context() -> Context:
    """Find the engine as kernels do. Raises EngineNotFound."""
    places = find_places()
    engine = get_engine(ApptainerConfig(config=load_config()).engine_path or None, places=places)
    return Context(engine, places, Manual(engine, places))


def build_terminal_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Leave out what ipykernel has set for itself: a program in an image would look for a back end of matplotlib that is not there."""
    clean = {name: value for name, value in environ.items() if not name.startswith("JPY_")}
    if clean.get("MPLBACKEND", "").startswith("module://"):
        del clean["MPLBACKEND"]
    return clean
