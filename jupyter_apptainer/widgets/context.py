"""What the panel knows of where it runs: folders, settings, and whether there is an engine and a container around it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..config import ApptainerConfig, load_config
from ..engine.locate import find_engine
from ..places import Places, find_places

IN_CONTAINER = (
    "this notebook runs in a container that has no bridge to its host: use the panel in a notebook of the host"
)
NO_ENGINE = "no engine on this machine: `jupyter apptainer engine install` gets one"


@dataclass(frozen=True)
class PanelContext:
    """obstacle: why nothing can be started from here; empty where it can. kernel_id: of the container kernel that asks over its bridge.
    cpu_seen: of each instance at the last look, when that was and the processor time so far, both in seconds.
    """

    places: Places
    environ: Mapping[str, str]
    settings: ApptainerConfig
    obstacle: str
    kernel_id: str = ""
    cpu_seen: dict[str, tuple[float, float]] = field(default_factory=dict)

    def describe_cpu(self, name: str, cpu_s: float) -> str:
        """Say how much of a processor an instance has used since the last look; the first look has nothing to compare with."""
        now = time.monotonic()
        seen_at, before_s = self.cpu_seen.get(name, (now, cpu_s))
        self.cpu_seen[name] = (now, cpu_s)
        total = f"{cpu_s:.1f} s in all"
        return f"{100 * (cpu_s - before_s) / (now - seen_at):.0f} %, {total}" if now > seen_at else total


def find_context(environ: Mapping[str, str] | None = None, *, kernel_id: str = "") -> PanelContext:
    """Look once, when the panel opens."""
    env = os.environ if environ is None else environ
    settings = ApptainerConfig(config=load_config())
    obstacle = ""
    if env.get("APPTAINER_CONTAINER") or env.get("SINGULARITY_CONTAINER"):
        obstacle = IN_CONTAINER
    elif find_engine(settings.engine_path or None, environ=env, places=find_places(env)) is None:
        obstacle = NO_ENGINE
    return PanelContext(find_places(env), env, settings, obstacle, kernel_id)
