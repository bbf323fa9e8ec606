"""What the worker of a bridge has to know of its kernel: written by the kernel's owner, never by the container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..engine.locate import EngineInfo
from ..instances.model import Instance
from .paths import PathMap

SOCKET = "bridge.sock"
VARIABLE = "JUPYTER_APPTAINER_SOCK"
# Where what is lent lies in the folder that each instance binds.
CLIENT = "bridge"
CLIENT_SOURCE = str(Path(__file__).with_name("lent"))


@dataclass(frozen=True)
class BoundPath:
    """A bind of the plan."""

    source: str
    destination: str
    mode: str
    why: str


@dataclass(frozen=True, kw_only=True)
class BridgeSetup:
    """One kernel, as its bridge sees it.

    level: "read" or "full". label: names the kernel to people. sees_home: the container has the user's own home folder.
    overlays: as the engine took them. limits: of `resources`, by name; None is no limit.
    """

    level: str
    kernel_id: str
    kernelspec: str
    label: str
    engine: EngineInfo
    instance: Instance
    paths: PathMap
    binds: tuple[BoundPath, ...]
    overlays: tuple[str, ...]
    limits: Mapping[str, float | None]
    has_gpu: bool
    network: str
    isolation: str
    sees_home: bool

    def to_json(self) -> dict[str, Any]:
        """For the worker."""
        record = asdict(self)
        record["instance"] = self.instance.to_json()
        record["paths"] = self.paths.to_json()
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> BridgeSetup:
        """From the owner of the kernel."""
        values = dict(record)
        engine = dict(values["engine"])
        engine["version"] = tuple(engine["version"])
        values["engine"] = EngineInfo(**engine)
        values["instance"] = Instance.from_json(values["instance"])
        values["paths"] = PathMap.from_json(values["paths"])
        values["binds"] = tuple(BoundPath(**bind) for bind in values["binds"])
        values["overlays"] = tuple(values["overlays"])
        return cls(**values)
