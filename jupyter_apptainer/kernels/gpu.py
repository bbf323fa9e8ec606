"""Whether a kernel gets an NVIDIA GPU, decided from what the host has. Pure; `gpu_trial` tries it once the kernel runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..engine.host.gpu import Nvidia


@dataclass(frozen=True)
class GpuPlan:
    """nv: the engine gets `--nv`. note: what was asked for, found and decided. problem: why a wanted GPU cannot be used."""

    nv: bool = False
    note: str = "no GPU was asked for"
    problem: str = ""


def plan_gpu(nv: Literal["auto"] | bool, found: Nvidia) -> GpuPlan:
    """Decide on `--nv`. With "auto" a machine without a GPU is no problem, one with a GPU that cannot be used is."""
    if nv is False:
        return GpuPlan(False, "`nv` is false: not looked for")
    if nv == "auto" and not found.devices:
        return GpuPlan(False, f"`nv` is auto: without, since {found.problem}")
    word = str(nv).lower()
    problem = f"`nv` is {word}, but {found.problem}" if found.problem else ""
    if found.fix and problem:
        problem += f" (try: {found.fix})"
    return GpuPlan(True, f"`nv` is {word}; {found.describe()}", problem)
