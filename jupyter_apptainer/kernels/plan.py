"""From wish to plan: everything that a start will do, computed before anything is done.

`build_launch_plan` is a pure function; what it needs to know of the machine comes in as `LaunchContext`.
`jupyter apptainer kernel explain` prints the result.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..engine.locate import EngineInfo
from ..engine.options import Bind, ContainerOptions


@dataclass(frozen=True)
class EnvEntry:
    """One variable that the kernel will see, and why."""

    name: str
    value: str
    why: str


@dataclass(frozen=True)
class PlannedFile:
    """A folder or link that must exist on the host before the start. kind "link": `target` is what it points to."""

    kind: str
    path: str
    why: str
    target: str = ""


@dataclass(frozen=True)
class LaunchPlan:
    """A start, computed. Printable; nothing in it refers to a running thing.

    instance_argv / kernel_argv: the exact engine command lines; env: what the kernel sees; files: made before the start,
    private_dir (sockets, connection file, log) and scratch_dir (the kernel's /tmp) are removed after the end.
    """

    engine: EngineInfo
    kernel_id: str
    instance_name: str
    image: str
    options: ContainerOptions
    env: tuple[EnvEntry, ...]
    kernel_command: tuple[str, ...]
    cwd: str
    private_dir: str
    scratch_dir: str
    connection_file: str
    files: tuple[PlannedFile, ...]
    warnings: tuple[str, ...]
    instance_argv: tuple[str, ...]
    kernel_argv: tuple[str, ...]

    @property
    def binds(self) -> tuple[Bind, ...]:
        """The host paths that the kernel sees, in mount order."""
        return self.options.binds
