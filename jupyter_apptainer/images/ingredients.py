"""Digests of all that goes into a build from outside of its recipe: base images, and the files that %files copies.

They become the record of the build, which is kept in the image.
"""

from __future__ import annotations

import glob
import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ..engine.locate import EngineInfo
from ..errors import CommandError
from ..places import Places
from .build_record import BuildRecord
from .digest import compute_digest
from .pinned import restore_text
from .recipes.definition import Definition, Stage, parse_definition
from .recipes.definition import resolve as resolve_arguments
from .recipes.recipe import Recipe
from .reference import REGISTRY_SCHEMES, parse_reference
from .registry import Access, load_credentials, resolve

_BLOCK = 1 << 20
# Which release of a system the host's mirror gave is in the image anyway, and not secret.
_SHOWN = ("SUITE",)


@dataclass(frozen=True)
class BaseDigests:
    """Finds out which image a `From:` means now. ca_bundle: a PEM file, for registries. no_https: those that speak plain http."""

    engine: EngineInfo
    places: Places
    environ: Mapping[str, str]
    ca_bundle: str | None = None
    no_https: tuple[str, ...] = ()

    def find_all(self, definition: Definition, folder: Path) -> dict[str, str]:
        """Return `sha256:…` by `AGENT:FROM`; of a registry's name it is the manifest's, and "" where nobody knows."""
        found = {}
        for stage in definition.stages:
            origin = stage.get_header("from")
            if origin and origin.value:
                found[name_base(stage)] = self.find(stage, folder)
        return found

    def find(self, stage: Stage, folder: Path) -> str:
        """Return the digest of the base of one stage that has one."""
        agent, _, origin = name_base(stage).partition(":")
        if agent in REGISTRY_SCHEMES:
            return self._ask_registry(f"{agent}://{origin}")
        if agent == "localimage":
            try:
                return f"sha256:{compute_digest(str(folder / origin), self.places)}"
            except CommandError:
                # An unpacked image has none.
                return ""
        archive = folder / origin.split(":")[0]
        return f"sha256:{_digest_file(archive)}" if agent.endswith("archive") and archive.is_file() else ""

    def _ask_registry(self, uri: str) -> str:
        try:
            reference = parse_reference(uri)
        except ValueError:
            return ""
        if reference.digest:
            return reference.digest
        credentials = load_credentials(self.engine, reference.host, self.environ)
        is_plain = "*" in self.no_https or reference.host in self.no_https
        access = Access(no_https=is_plain, ca_bundle=self.ca_bundle, credentials=credentials)
        found = resolve(reference, access)
        return found.digest if found else ""


def is_plain_http(recipe: Recipe, no_https: Sequence[str]) -> bool:
    """Say whether a recipe begins with an image of a registry that speaks plain http."""
    definition = resolve_arguments(parse_definition(recipe.definition), {**recipe.build_args, **recipe.secret_args})
    origins = [stage.get_header("from") for stage in definition.stages if stage.agent in ("docker", "oras")]
    hosts = {origin.value.partition("/")[0] for origin in origins if origin}
    return bool(hosts) and ("*" in no_https or not hosts.isdisjoint(no_https))


def make_record(
    recipe: Recipe, bases: BaseDigests, *, compression: str, epoch: int | None, has_host_settings: bool
) -> BuildRecord:
    """Look at all that will go into the image. Registries are asked for digests."""
    definition = resolve_arguments(parse_definition(recipe.definition), {**recipe.build_args, **recipe.secret_args})
    return BuildRecord(
        definition=restore_text(recipe.definition, recipe.pinned),
        build_args=dict(recipe.build_args)
        | {name: recipe.secret_args[name] for name in _SHOWN if name in recipe.secret_args},
        host_args=tuple(sorted(recipe.secret_args)),
        bases=_restore_names(bases.find_all(definition, recipe.folder), recipe),
        inputs=digest_inputs(definition, recipe.folder),
        compression=compression,
        epoch=epoch,
        has_host_settings=has_host_settings,
        engine=f"{bases.engine.flavour} {bases.engine.version_text}",
        made_with=f"jupyter-apptainer {version('jupyter-apptainer')}",
    )


def _restore_names(bases: Mapping[str, str], recipe: Recipe) -> dict[str, str]:
    """A base that a lock has pinned is known by the name that was written."""
    originals = {each.value: each.original for each in recipe.pinned}
    parts = ((*name.partition(":"), digest) for name, digest in bases.items())
    return {f"{agent}:{originals.get(value, value)}": digest for agent, _, value, digest in parts}


def name_base(stage: Stage) -> str:
    """Return `AGENT:FROM` of a stage."""
    origin = stage.get_header("from")
    return f"{stage.agent}:{origin.value.split('#')[0].strip() if origin else ''}"


def digest_inputs(definition: Definition, folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each source of %files, by its name in the definition; "" for one that is not there.

    Of a folder: names, permissions and contents of all files in it.
    """
    sources = {copy.source for stage in definition.stages for copy in stage.iter_files() if not copy.stage}
    return {source: _digest_source(source, folder) for source in sorted(sources)}


def _digest_source(source: str, folder: Path) -> str:
    pattern = os.path.join(folder, source)
    paths = [pattern] if os.path.lexists(pattern) else sorted(glob.glob(pattern))
    rows = [row for path in paths for row in _list_tree(Path(path))]
    return hashlib.sha256("".join(rows).encode("utf-8", "surrogateescape")).hexdigest() if rows else ""


def _list_tree(path: Path) -> list[str]:
    """Return one line for each file. Links to files count as these: the engine follows them."""
    if not path.is_dir():
        return [_describe(path, path.name)]
    found = [f"{path.name}\n"]
    for place, folders, names in os.walk(path):
        folders.sort()
        for name in sorted([*names, *folders]):
            file = Path(place, name)
            found.append(_describe(file, os.path.relpath(file, path)))
    return found


def _describe(path: Path, name: str) -> str:
    try:
        mode = path.stat().st_mode
        digest = _digest_file(path) if stat.S_ISREG(mode) else ""
    except OSError as error:
        return f"{name}\0{error.errno}\n"
    return f"{name}\0{mode:o}\0{digest}\n"


def _digest_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
