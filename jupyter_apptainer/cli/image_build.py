"""`jupyter apptainer image build`: make an image of what a person has."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from ..config import ApptainerConfig, load_config
from ..engine.locate import get_engine
from ..errors import SpecError
from ..images.build_options import COMPRESSIONS, BuildOptions
from ..images.build_secrets import parse_secret
from ..images.lock import load_lock
from ..images.preflight import check_build, raise_for_errors
from ..images.recipes.sources import Kind
from ..images.reproducible import load_epoch
from ..images.work import RecipeSource, plan_build
from ..places import Places, find_places
from ..tasks.start import start_task
from .image_lock import tell_rebuilt
from .image_settings import find_folders
from .output import print_note
from .task_view import show_task
from .verbs import add_verb

_KINDS: tuple[Kind, ...] = ("def", "dockerfile", "environment", "requirements")


def add_build(commands: Any) -> None:
    """Add `build` to the commands of `image`."""
    parser = add_verb(
        commands,
        "image",
        "build",
        "make an image of a definition file, a Dockerfile, an environment.yml, a requirements.txt or a folder of these; "
        "it is checked first, and nothing is left of a build that fails",
        "build analysis.sif --requirements requirements.txt",
        "build tool.sif --dockerfile Dockerfile --build-arg VERSION=2.1",
        "build course.sif . --base ./starter.sif",
        "build work.sif --environment environment.yml --pypi",
        "build tool.sif --dockerfile Dockerfile --print > tool.def",
        "build again.sif --lock lab.lock.json",
        "build tool.sif --dockerfile Dockerfile --secret id=token,src=$HOME/.token",
    )
    parser.add_argument("out", metavar="OUT", help="the image's file, such as analysis.sif")
    parser.add_argument(
        "folder", metavar="FOLDER", nargs="?", help="a folder with a recipe in it, as repo2docker knows them"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--def", dest="def_", metavar="F", help="a definition file")
    source.add_argument("--dockerfile", metavar="F", help="a Dockerfile; COPY takes from its folder")
    source.add_argument("--environment", metavar="F", help="an environment.yml; ipykernel is added")
    source.add_argument("--requirements", metavar="F", help="a requirements.txt or pyproject.toml; ipykernel is added")
    source.add_argument(
        "--lock",
        metavar="F",
        help="a lock file or a notebook with a lock: the same recipe, bases and versions again, and what differs in the end; "
        "FOLDER: where the recipe's files are (default: beside F)",
    )
    parser.add_argument(
        "--pypi",
        action="store_true",
        help="make an environment.yml without conda, of the packages that PyPI and Debian are known to have; others are named",
    )
    parser.add_argument(
        "--build-arg", action="append", default=[], metavar="K=V", help="an argument of the recipe (again for more)"
    )
    parser.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="id=NAME[,src=FILE|,env=VAR]",
        help="a password or token for the recipe's scripts, as the file /mnt/secrets/NAME, and for RUN --mount=type=secret; "
        "no log, argument or image has it (again for more)",
    )
    parser.add_argument(
        "--base",
        default="",
        metavar="IMG",
        help="begin with this image: a name in a registry, a file, or `mirror` for a system made of this host's packages "
        "(default: the recipe's own, or a Python image of the registry, or `mirror` where that cannot be reached)",
    )
    parser.add_argument(
        "--compression",
        choices=tuple(COMPRESSIONS),
        default="lz4",
        help="lz4 (default) starts fastest, gzip is smallest",
    )
    parser.add_argument(
        "--reproducible",
        action="store_true",
        help="the same recipe and sources give the same bytes: times later than SOURCE_DATE_EPOCH (default: now) become it; "
        "implied where SOURCE_DATE_EPOCH is set",
    )
    parser.add_argument(
        "--no-cache",
        action="store_true",
        help="run all steps again, also those that earlier builds have kept as layers",
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.add_argument(
        "--host-settings",
        action="store_true",
        help="let certificates, proxies, pip's indexes and apt's mirror of this host reach the build; they do not stay in the image",
    )
    parser.add_argument("--ca-bundle", metavar="FILE", help="the certificates for --host-settings, in PEM format")
    parser.add_argument(
        "--print", action="store_true", help="print the definition that would be built, and build nothing"
    )
    parser.add_argument(
        "--detach", action="store_true", help="print the task's id and do not wait: `jupyter apptainer tasks`"
    )
    parser.set_defaults(func=_build)


def _build(arguments: argparse.Namespace) -> int:
    places = find_places()
    source = _read_source(arguments, places)
    recipe = source.load()
    for finding in recipe.findings:
        if finding.severity != "error":
            print_note(finding.render(str(recipe.source) if finding.line else ""))
    if arguments.print:
        raise_for_errors(recipe.findings, recipe.source)
        print(recipe.definition, end="")
        return 0
    settings = ApptainerConfig(config=load_config())
    ca_bundle = arguments.ca_bundle or settings.ca_bundle
    options = BuildOptions(
        compression=arguments.compression,
        is_forced=arguments.force,
        has_host_settings=arguments.host_settings or bool(arguments.ca_bundle),
        ca_bundle=Path(ca_bundle).expanduser() if ca_bundle else None,
        uses_layers=not arguments.no_cache,
        # Without a time that is given, no later build could use them.
        layers_bytes=0
        if arguments.reproducible and load_epoch(os.environ) is None
        else settings.build_cache_mib * 2**20,
        epoch=_find_epoch(arguments),
        secrets=tuple(parse_secret(text) for text in arguments.secret),
        no_https=tuple(settings.no_https),
    )
    engine = get_engine(settings.engine_path or None, places=places)
    spec = plan_build(source, Path(arguments.out), options, engine=engine.path, recipe=recipe)
    # Said here, and not by a task that then fails.
    raise_for_errors(check_build(recipe, Path(arguments.out), places, options), recipe.source)
    started = start_task(places, spec)
    if arguments.detach:
        print(started.task.id)
        return 0
    built = show_task(places, started)
    print(built["path"])
    if source.kind == "lock":
        tell_rebuilt(engine, places, load_lock(Path(source.path)), Path(built["path"]))
    print_note(f"{built['size_bytes'] / 2**20:.0f} MiB in {built['duration_s']:.0f} s; log: {built['log']}")
    return 0


def _find_epoch(arguments: argparse.Namespace) -> int | None:
    epoch = load_epoch(os.environ)
    return int(time.time()) if epoch is None and arguments.reproducible else epoch


def _read_source(arguments: argparse.Namespace, places: Places) -> RecipeSource:
    build_args = dict(_split(text) for text in arguments.build_arg)
    if arguments.lock:
        if build_args or arguments.base or arguments.pypi:
            raise SpecError("--build-arg, --base and --pypi mean nothing with --lock: the lock says what is built")
        images = tuple(str(folder) for folder in find_folders(places))
        return RecipeSource("lock", arguments.lock, folder=arguments.folder or "", image_dirs=images)
    named = {kind: getattr(arguments, "def_" if kind == "def" else kind) for kind in _KINDS}
    kind: Kind = next((each for each in _KINDS if named[each]), "folder")
    if (kind == "folder") == (arguments.folder is None):
        raise SpecError("give one of --def F, --dockerfile F, --environment F, --requirements F, --lock F, or a FOLDER")
    path = Path(named[kind] if kind != "folder" else arguments.folder).expanduser()
    if arguments.pypi and kind not in ("environment", "folder"):
        raise SpecError("--pypi is for an environment.yml", hint="leave it out")
    return RecipeSource(kind, str(path), build_args, arguments.base, has_conda=not arguments.pypi)


def _split(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise SpecError(f"--build-arg {text!r}: expected NAME=VALUE")
    return name, value
