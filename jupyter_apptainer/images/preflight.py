"""What can be known before a build: its recipe's faults, whether its image can be written where it shall be, and whether there is room."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..engine.step import find_program
from ..errors import RecipeInvalid
from ..places import Places
from .build_options import BuildOptions
from .recipes.definition import Definition, parse_definition, resolve
from .recipes.findings import Finding, sort_findings
from .recipes.recipe import Recipe

# Below the first, not even a small system fits; below the second, many that people build do not.
_TOO_LITTLE_BYTES = 200 * 2**20
_LITTLE_BYTES = 3 * 2**30
# A compressed image unpacks to about three times its size.
_UNPACKED_RATIO = 3


def check_build(
    recipe: Recipe, target: Path, places: Places, options: BuildOptions, environ: Mapping[str, str] | None = None
) -> tuple[Finding, ...]:
    """Return all findings: the recipe's, and those of the places where the image will be made and put."""
    definition = resolve(parse_definition(recipe.definition), {**recipe.build_args, **recipe.secret_args})
    scratch = find_scratch(places, os.environ if environ is None else environ)
    return sort_findings(
        [
            *recipe.findings,
            *check_target(target.absolute(), is_forced=options.is_forced),
            *check_space(target.absolute(), scratch, definition, recipe.folder),
            *check_debootstrap(definition),
        ]
    )


def raise_for_errors(findings: tuple[Finding, ...], source: Path) -> None:
    """Raise RecipeInvalid where there is an error among the findings."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        first = errors[0].render(str(source) if errors[0].line else "")
        rest = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        raise RecipeInvalid(
            f"nothing was built: {first}{rest}",
            hint="",
            log_tail=[each.render(source.name if each.line else "") for each in errors[1:]],
        )


def find_scratch(places: Places, environ: Mapping[str, str]) -> Path:
    """Return the folder in which images are put together."""
    named = environ.get("APPTAINER_TMPDIR")
    return Path(named) if named else places.scratch


def check_target(target: Path, *, is_forced: bool) -> Iterator[Finding]:
    """Yield what keeps `target` from being written; the engine notices some of it only after the build."""
    folder = target.parent
    if target.is_dir():
        yield Finding(0, "error", "target-folder", f"{target} is a folder", "give the name of a file, such as name.sif")
    elif os.path.lexists(target) and not is_forced:
        yield Finding(0, "error", "target-exists", f"{target} exists already", "choose another name, or add --force")
    if not folder.is_dir():
        yield Finding(0, "error", "target-missing", f"the folder {folder} does not exist", f"`mkdir -p {folder}`")
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield Finding(0, "error", "target-read-only", f"nothing can be written to {folder}", "choose another folder")


def check_space(target: Path, scratch: Path, definition: Definition, folder: Path) -> Iterator[Finding]:
    """Yield where there is too little room. scratch: where the image is put together; it need not exist yet."""
    origin = sum(_measure_origins(definition, folder))
    yield from _check_free(
        _find_existing(scratch), origin * _UNPACKED_RATIO, "put the image together", "`export APPTAINER_TMPDIR=FOLDER`"
    )
    yield from _check_free(_find_existing(target.parent), origin, "write the image", "choose another folder")


def check_debootstrap(definition: Definition) -> Iterator[Finding]:
    """Yield what keeps debootstrap from working for an ordinary user."""
    is_used = any(stage.agent == "debootstrap" for stage in definition.stages)
    if is_used and os.geteuid() != 0 and find_program("arch-test"):
        yield Finding(
            0,
            "warning",
            "arch-test",
            "debootstrap fails in a container of an ordinary user while the package arch-test is installed",
            "`sudo apt-get remove arch-test`, or begin with an image of a registry",
        )


def _check_free(folder: Path, needed: int, purpose: str, hint: str) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free
    if free < max(_TOO_LITTLE_BYTES, needed):
        yield Finding(0, "error", "disk-full", f"{folder} has {_show(free)} left, too little to {purpose}", hint)
    elif free < _LITTLE_BYTES:
        yield Finding(0, "warning", "disk-low", f"{folder} has only {_show(free)} left to {purpose}", hint)


def _measure_origins(definition: Definition, folder: Path) -> Iterator[int]:
    for stage in definition.stages:
        origin = stage.get_header("from")
        path = folder / origin.value.split(":")[0] if origin and stage.agent.endswith(("image", "archive")) else None
        if path and path.is_file():
            yield path.stat().st_size


def _find_existing(folder: Path) -> Path:
    return next((each for each in (folder, *folder.parents) if each.is_dir()), Path("/"))


def _show(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
