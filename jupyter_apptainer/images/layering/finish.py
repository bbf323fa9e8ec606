"""What of a layered build the engine writes itself: the folders of apps, and, in the last layer, what the image says about itself. And the SIF of all.

For both it has a definition of ours, a script of which mounts the layers over the engine's own folder.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path

from ...engine.command import Command
from ...engine.companions import find_companion
from ...engine.layering import Room, build_metadata, build_step
from ...errors import CommandError
from ..build_log import BuildLog
from ..recipes.definition import Stage
from ..reproducible import VARIABLE, build_settle_program
from ..sif_write import measure_offset, write_header
from .metadata import build_apps_definition, build_metadata_definition, settle_metadata
from .order import Order
from .plan import Step
from .store import Layer

# Phases of the engine's builds of our definitions.
APPS_PHASES = frozenset({"Running %pre", "Compressing"})
_PHASES = frozenset({"Running %setup", "Compressing"})


def build_apps_command(order: Order, room: Room, below: Layer, path: Path, step: Step) -> Command[None]:
    """Let the engine make the folders and files of a step's apps in the layer `path`."""
    definition = order.scratch / "apps.def"
    definition.write_text(build_apps_definition(step.apps, path / "root"), encoding="utf-8")
    # The engine makes nothing of an image that is there.
    image = order.scratch / f"{path.name}.sif"
    command = build_metadata(
        order.engine,
        room,
        below.stack,
        path.name,
        str(definition),
        str(image),
        order.env,
        cwd=str(order.recipe.folder),
        is_for_apps=True,
    )
    return replace(command, subject=str(order.recipe.source))


def finish(
    order: Order, room: Room, log: BuildLog, layer: Layer, path: Path, stage: Stage, kept: str
) -> Generator[Command[None], CommandError | None, None]:
    """Add to `layer`, in the new layer `path`, what the image says about itself, and pack all of it.

    stage: the last one of the recipe. kept: the recipe as the image shows it.
    """
    definition, sif = order.scratch / "last.def", order.scratch / "last.sif"
    definition.write_text(build_metadata_definition(stage, path / "root"), encoding="utf-8")
    log.hidden = _PHASES
    command = build_metadata(
        order.engine, room, layer.stack, path.name, str(definition), str(sif), order.env, cwd=str(order.recipe.folder)
    )
    yield from _run(replace(command, subject=str(order.recipe.source)))
    texts = (*settle_metadata(path / "tree", sif, kept, stage.agent, order.epoch), *order.texts)
    log.hidden = frozenset()
    log.begin("Compressing")
    env: Mapping[str, str] = order.env
    program: tuple[str, ...] = ()
    if order.epoch is not None:
        settle = build_settle_program(path / "root", order.epoch)
        yield from _run(build_step(room, layer.stack, path.name, settle, env, title="settle times"))
        # mksquashfs takes it for its own time, and for that of all files that are later.
        env = {**env, VARIABLE: str(order.epoch)}
        # As the engine leaves a folder, of which such an image is made where it is built as a whole.
        program = ("sh", "-c", 'chmod 755 "$2" && exec "$@"', "sh")
    mksquashfs = find_companion(order.engine, "mksquashfs") or "mksquashfs"
    flags = ("-noappend", "-quiet", "-offset", str(measure_offset(texts)), *order.mksquashfs_args)
    program = (*program, mksquashfs, str(path / "root"), str(order.target), *flags)
    yield from _run(build_step(room, layer.stack, path.name, program, env, title=f"pack {order.target.name}"))
    write_header(order.target, texts, int(time.time()) if order.epoch is None else order.epoch)


def _run(command: Command[None]) -> Generator[Command[None], CommandError | None, None]:
    error = yield command
    if error:
        raise error
