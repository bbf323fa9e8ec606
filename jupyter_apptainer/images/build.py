"""Build an image from a recipe: checked before, told about on the way, gone without a trace where it does not succeed.

`build_image` waits, `build_image_async` is awaited; interrupting the one and cancelling the other stops the engine and removes
what the build has made. The image appears under its name only when it is whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from ..engine.command import Command
from ..engine.layering import SCRIPTED
from ..engine.locate import EngineInfo
from ..engine.runner import AsyncRunner, Runner
from ..errors import CommandError
from ..places import Places
from ..tasks.report import Report
from .build_log import OnProgress
from .build_options import BuildOptions
from .one_build import Build, BuiltImage, Steps
from .recipes.recipe import Recipe

__all__ = ["BuildOptions", "BuiltImage", "build_image", "build_image_async"]


def build_image(
    engine: EngineInfo,
    places: Places,
    recipe: Recipe,
    target: Path,
    options: BuildOptions | None = None,
    *,
    on_progress: OnProgress = lambda _: None,
    environ: Mapping[str, str] | None = None,
    report: Report | None = None,
) -> BuiltImage:
    """Build `target` from `recipe` and return what was made.

    on_progress: told in a few words what begins. report: of the task that this is, if it is one. Raises RecipeInvalid for what
    was found before, with the findings as its last lines; BuildError, DiskFull and the like for what went wrong on the way.
    """
    build = Build(engine, places, recipe, target, options or BuildOptions(), on_progress, environ, report)
    try:
        steps = build.iter_steps()
        command = _advance(steps, None)
        while command is not None:
            error: CommandError | None = None
            try:
                Runner().run(command, on_text=build.log.feed, use_pty=_is_without_scripts(command))
            except CommandError as failure:
                error = failure
            command = _advance(steps, error)
        return build.conclude()
    finally:
        build.clean_up()


async def build_image_async(
    engine: EngineInfo,
    places: Places,
    recipe: Recipe,
    target: Path,
    options: BuildOptions | None = None,
    *,
    on_progress: OnProgress = lambda _: None,
    environ: Mapping[str, str] | None = None,
    report: Report | None = None,
) -> BuiltImage:
    """`build_image` for code on an event loop; cancelling it stops the build."""
    build = Build(engine, places, recipe, target, options or BuildOptions(), on_progress, environ, report)
    try:
        steps = build.iter_steps()
        command = await asyncio.to_thread(_advance, steps, None)
        while command is not None:
            error: CommandError | None = None
            try:
                await AsyncRunner().run(command, on_text=build.log.feed)
            except CommandError as failure:
                error = failure
            command = await asyncio.to_thread(_advance, steps, error)
        return build.conclude()
    finally:
        await asyncio.shield(asyncio.to_thread(build.clean_up))


def _advance(steps: Steps, error: CommandError | None) -> Command[None] | None:
    """Return the next command, or None at the end. error: how the last one failed."""
    try:
        # The first `send` to a generator takes nothing but None, and there is no error before it.
        return steps.send(error)
    except StopIteration:
        return None


def _is_without_scripts(command: Command[None]) -> bool:
    """Say whether the engine may have a terminal, and so draw its progress: programs of a recipe might wait for an answer there."""
    return not command.argv[-1].endswith("recipe.def") and command.title not in SCRIPTED
