"""The parts of a wish that have more than one word: a bind, an overlay, limits, as a kernel's configuration asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..overlays.size import DEFAULT_MIB


@dataclass(frozen=True)
class BindWish:
    """`SRC[:DEST[:ro|rw]]`; destination None means the same path."""

    source: str
    destination: str | None = None
    mode: Literal["rw", "ro"] = "rw"


@dataclass(frozen=True)
class OverlayWish:
    """kind "file": `path`, read-only or not; kind "tmpfs": a writable layer in memory that goes with the instance.

    kind "auto": a file of ours, one for each kernelspec or for each notebook (`per`), made with `size_mib` at its first use.
    """

    kind: Literal["file", "tmpfs", "auto"]
    path: str = ""
    is_read_only: bool = False
    per: Literal["kernel", "notebook"] = "kernel"
    size_mib: int = DEFAULT_MIB


@dataclass(frozen=True)
class ResourcesWish:
    """Limits; None is none. cpus may be a fraction; pids counts threads too, as cgroups do."""

    cpus: float | None = None
    memory_bytes: int | None = None
    pids: int | None = None


UNLIMITED = ResourcesWish()
