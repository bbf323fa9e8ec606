"""What a kernel wants: the `config` of a kernel.json, checked once.

Nothing below sees raw configuration: `parse_container_spec` names each wrong field, its value and what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Nv = Literal["auto", True, False]
Isolation = Literal["default", "contain", "containall"]
Network = Literal["host", "none"]

PYTHON_COMMAND = ("python", "-m", "ipykernel_launcher", "-f", "{connection_file}")


@dataclass(frozen=True)
class BindWish:
    """`SRC[:DEST[:ro|rw]]`; destination None means the same path."""

    source: str
    destination: str | None = None
    mode: Literal["rw", "ro"] = "rw"


@dataclass(frozen=True)
class OverlayWish:
    """kind "file": `path`, read-only or not; kind "tmpfs": a writable layer in memory that goes with the instance."""

    kind: Literal["file", "tmpfs"]
    path: str = ""
    is_read_only: bool = False


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """One kernel's container, wanted. Field names are those of kernel.json."""

    image: str
    nv: Nv = "auto"
    rocm: bool = False
    binds: tuple[BindWish, ...] = ()
    overlays: tuple[OverlayWish, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    inherit_env: tuple[str, ...] = ()
    home: str = "host"
    isolation: Isolation = "default"
    command: tuple[str, ...] = PYTHON_COMMAND
    network: Network = "host"
    extra_flags: tuple[str, ...] = ()
