"""Builds, pulls and pushes as tasks: `plan_…` says what shall be done, for `tasks.start_task`; `run_…` does it, in the worker.

What is asked for is kept as it was said, so that a task can be repeated: the recipe is read anew each time. Passwords are the engine's
business, and part of no task.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..engine.locate import get_engine
from ..places import find_places
from ..tasks.model import TaskSpec
from ..tasks.report import Report
from .build import BuildOptions, build_image
from .build_secrets import SecretSource
from .catalogue import list_images
from .lock import load_lock
from .rebuild import choose_options, load_locked_recipe
from .recipes.check_files import expand_source
from .recipes.definition import parse_definition, resolve
from .recipes.recipe import Recipe
from .recipes.sources import Kind, load_recipe
from .reference import parse_reference
from .transfer import Progress, Settings, pull_image, push_image


@dataclass(frozen=True)
class RecipeSource:
    """A recipe as a person names it; `load_recipe` tells what the fields mean.

    kind "lock": the recipe of a lock file or notebook, whose files are in `folder`, by default its own; a base may be in
    `image_dirs` under another name.
    """

    kind: Kind | Literal["lock"]
    path: str
    build_args: Mapping[str, str] = field(default_factory=dict)
    base: str = ""
    has_conda: bool = True
    folder: str = ""
    image_dirs: tuple[str, ...] = ()

    def load(self) -> Recipe:
        """Read and check it."""
        if self.kind == "lock":
            return self._load_locked()
        return load_recipe(
            self.kind, Path(self.path), build_args=self.build_args, base=self.base, has_conda=self.has_conda
        )

    def _load_locked(self) -> Recipe:
        path, places = Path(os.path.abspath(self.path)), find_places()
        images = list_images(places, map(Path, self.image_dirs))
        folder = Path(os.path.abspath(self.folder or path.parent))
        files = (image.path for image in images if image.kind == "sif")
        return load_locked_recipe(load_lock(path), path, folder, files, places)


def plan_build(
    source: RecipeSource,
    target: Path,
    options: BuildOptions | None = None,
    *,
    engine: str = "",
    recipe: Recipe | None = None,
) -> TaskSpec:
    """Plan a build. engine: the program, by default the one that is found. recipe: what `source` is, if it was read already.

    Raises SpecError where there is no recipe to read.
    """
    found = recipe or source.load()
    chosen = options or BuildOptions()
    if source.kind == "lock":
        chosen = choose_options(load_lock(Path(source.path)), chosen)
    path = os.path.abspath(target)
    return TaskSpec(
        kind="image-build",
        title=f"build {Path(path).name}",
        work=f"{__name__}:run_build",
        args={
            "source": asdict(source) | _make_absolute(source),
            "target": path,
            "options": {name: _to_json(value) for name, value in asdict(chosen).items()},
            "engine": engine,
        },
        target=path,
        fingerprint=_compute_fingerprint(found.definition, asdict(chosen), dict(found.build_args), _list_inputs(found)),
        cwd=os.getcwd(),
    )


def run_build(args: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Called in the worker: build, and return path, size_bytes, duration_s and log."""
    recipe = RecipeSource(**args["source"]).load()
    values = dict(args["options"])
    bundle = values.get("ca_bundle")
    values["secrets"] = tuple(SecretSource(**each) for each in values.get("secrets", ()))
    options = BuildOptions(**{**values, "ca_bundle": Path(bundle) if bundle else None})
    engine = get_engine(args["engine"] or None, places=report.places)
    built = build_image(engine, report.places, recipe, Path(args["target"]), options, report=report)
    return {
        "path": str(built.path),
        "size_bytes": built.size_bytes,
        "duration_s": round(built.duration_s, 3),
        "log": str(built.log),
    }


def plan_pull(
    uri: str, target: Path, settings: Settings | None = None, *, is_forced: bool = False, engine: str = ""
) -> TaskSpec:
    """Plan a pull of `uri` to the file `target`. Raises SpecError for a name that cannot be."""
    reference = parse_reference(uri)
    chosen = settings or Settings()
    path = os.path.abspath(target)
    return TaskSpec(
        kind="image-pull",
        title=f"pull {reference.uri}",
        work=f"{__name__}:run_pull",
        args={"uri": uri, "target": path, "is_forced": is_forced, "engine": engine, **_keep(chosen)},
        target=path,
        fingerprint=_compute_fingerprint(reference.uri, is_forced, chosen.compression),
        cwd=os.getcwd(),
    )


def run_pull(args: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Called in the worker: pull, and return path, uri, digest and how."""
    engine = get_engine(args["engine"] or None, places=report.places)
    pulled = pull_image(
        engine,
        report.places,
        args["uri"],
        Path(args["target"]),
        settings=_restore(args),
        is_forced=args["is_forced"],
        on_progress=_build_teller(report),
    )
    return asdict(pulled)


def plan_push(image: Path, uri: str, settings: Settings | None = None, *, engine: str = "") -> TaskSpec:
    """Plan a push of a SIF to `uri`. Raises SpecError for a name that cannot be."""
    reference = parse_reference(uri)
    path = os.path.abspath(image)
    return TaskSpec(
        kind="image-push",
        title=f"push {Path(path).name} to {reference.uri}",
        work=f"{__name__}:run_push",
        args={"image": path, "uri": uri, "engine": engine, **_keep(settings or Settings())},
        target=reference.uri,
        fingerprint=_compute_fingerprint(path, _identify(Path(path))),
        cwd=os.getcwd(),
    )


def run_push(args: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Called in the worker: push, and return path, uri and digest."""
    engine = get_engine(args["engine"] or None, places=report.places)
    digest = push_image(
        engine, Path(args["image"]), args["uri"], settings=_restore(args), on_progress=_build_teller(report)
    )
    return {"path": args["image"], "uri": parse_reference(args["uri"]).uri, "digest": digest}


def _build_teller(report: Report) -> Any:
    def tell(progress: Progress) -> None:
        report.begin(progress.phase)
        if progress.text:
            report.write(f"{progress.text}\n")
        if progress.done is not None:
            report.count(progress.done, progress.total, progress.unit)

    return tell


def _keep(settings: Settings) -> dict[str, Any]:
    """Return what is kept of the settings: not the environment, which is the worker's."""
    return {
        "no_https": list(settings.no_https),
        "ca_bundle": settings.ca_bundle,
        "compression": settings.compression,
    }


def _restore(args: Mapping[str, Any]) -> Settings:
    return Settings(no_https=tuple(args["no_https"]), ca_bundle=args["ca_bundle"], compression=args["compression"])


def _make_absolute(source: RecipeSource) -> dict[str, str]:
    return {name: os.path.abspath(path) for name in ("path", "folder") if (path := getattr(source, name))}


def _to_json(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


def _compute_fingerprint(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _list_inputs(recipe: Recipe) -> list[object]:
    """Return what identifies the files that a recipe takes from this machine; folders by themselves."""
    if not recipe.definition:
        return []
    definition = resolve(parse_definition(recipe.definition), {**recipe.build_args, **recipe.secret_args})
    copies = [copy for stage in definition.stages for copy in stage.iter_files() if not copy.stage]
    return [_identify(path) for copy in copies for path in expand_source(copy.source, recipe.folder)]


def _identify(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return str(path)
    return [str(path), status.st_size, status.st_mtime_ns, status.st_ino]
