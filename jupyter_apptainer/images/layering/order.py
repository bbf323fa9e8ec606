"""What a layered build is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...engine.locate import EngineInfo
from ..recipes.recipe import Recipe
from ..sif_write import Text


@dataclass(frozen=True)
class Order:
    """What is to be built. target: where the finished file goes. env, binds: as for the engine's own build.

    uses_layers: those of earlier builds count. scratch: a folder of this build alone. no_https: its registry speaks plain http.
    epoch: for an image that does not depend on the time. needles: what no layer may have in it. texts: for the image's header.
    """

    engine: EngineInfo
    recipe: Recipe
    target: Path
    scratch: Path
    env: Mapping[str, str]
    binds: tuple[str, ...]
    mksquashfs_args: tuple[str, ...]
    uses_layers: bool
    no_https: bool
    epoch: int | None = None
    needles: tuple[bytes, ...] = ()
    texts: tuple[Text, ...] = ()
