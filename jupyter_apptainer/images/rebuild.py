"""From a lock back to a recipe: bases by their digests, files that are held against theirs, and what differs in the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..engine.apt import find_mirror, load_os_release
from ..engine.step import StepError
from ..errors import SpecError
from ..places import Places
from .build_options import COMPRESSIONS, BuildOptions
from .build_record import BuildRecord
from .compare import PackageChange, compare_packages
from .digest import find_by_digest
from .ingredients import digest_inputs, name_base
from .lock import Lock
from .pinned import pin_stage
from .recipes.definition import Stage, parse_definition, resolve
from .recipes.findings import Finding, sort_findings
from .recipes.recipe import Recipe
from .reference import REGISTRY_SCHEMES, parse_reference
from .starter import choose_debian_source

_DIGEST = "sha256:"


@dataclass(frozen=True)
class LockDifference:
    """How an image differs from its lock. is_same_file: not at all. is_same_content: only in how it is packed.

    folders: those of the first two levels in which files differ. build: names of what was built from, where that differs.
    """

    is_same_file: bool
    is_same_content: bool
    packages: tuple[PackageChange, ...] = ()
    folders: tuple[str, ...] = ()
    build: tuple[str, ...] = ()


def compare_lock(wanted: Lock, found: Lock) -> LockDifference:
    """Return in what the image of `found` differs from the one of `wanted`."""
    if wanted.image.sha256 == found.image.sha256:
        return LockDifference(is_same_file=True, is_same_content=True)
    names = sorted({*wanted.folders, *found.folders})
    old, new = wanted.build.to_json(), found.build.to_json()
    return LockDifference(
        is_same_file=False,
        is_same_content=wanted.image.files_sha256 == found.image.files_sha256,
        packages=tuple(compare_packages(wanted.packages, found.packages)),
        folders=tuple(name for name in names if wanted.folders.get(name) != found.folders.get(name)),
        build=tuple(name for name in old if old[name] != new[name]),
    )


def choose_options(lock: Lock, options: BuildOptions) -> BuildOptions:
    """Return the options of the first build. Times: where they were not fixed, nothing is newer than the image was."""
    build = lock.build
    # An image that was made elsewhere may have a compression that we do not offer.
    return replace(
        options,
        compression=build.compression if build.compression in COMPRESSIONS else "gzip",
        epoch=lock.image.created_at if build.epoch is None else build.epoch,
        has_host_settings=options.has_host_settings or build.has_host_settings,
    )


def load_locked_recipe(lock: Lock, source: Path, folder: Path, images: Iterable[str], places: Places) -> Recipe:
    """Make the recipe that builds the image of a lock again.

    source: the lock file, for messages. folder: where files of the recipe are looked for. images: paths of images of this
    machine, among which a base may be under another name. What is not as it was is a finding.
    """
    build = lock.build
    if not build.definition:
        raise SpecError(
            f"{source}: {lock.image.name} does not say what it was built from", hint="only `image verify` can use it"
        )
    secret_args = load_host_args(build)
    build_args = {name: value for name, value in build.build_args.items() if name not in secret_args}
    resolved = resolve(parse_definition(build.definition), {**build_args, **secret_args})
    findings = list(_check_inputs(build, digest_inputs(resolved, folder)))
    definition, pinned = build.definition, []
    for stage in resolved.stages:
        value, found = _find_base(stage, build.bases, folder, list(images), places)
        findings += found
        if value:
            definition, base = pin_stage(definition, stage, value)
            pinned.append(base)
    return Recipe(
        source, definition, folder, build_args, sort_findings(findings), secret_args, tuple(pinned), lock.packages
    )


def load_host_args(build: BuildRecord) -> dict[str, str]:
    """Return what this host adds to a recipe: its mirror, for the release that the lock names. Raises SpecError."""
    if not build.host_args:
        return {}
    try:
        mirror = choose_debian_source(find_mirror(), load_os_release())
    except StepError as error:
        raise SpecError(f"the image was made of a mirror's packages, and {error.reason}") from error
    values = {**mirror.arguments, "APT_SOURCE": mirror.apt_source}
    missing = [name for name in build.host_args if name not in values]
    if missing:
        raise SpecError(f"the lock asks this host for {', '.join(missing)}, which nobody knows")
    suite = build.build_args.get("SUITE", values["SUITE"])
    values["APT_SOURCE"] = values["APT_SOURCE"].replace(values["SUITE"], suite)
    return {name: values[name] for name in build.host_args} | ({"SUITE": suite} if "SUITE" in build.host_args else {})


def _check_inputs(build: BuildRecord, found: Mapping[str, str]) -> Iterable[Finding]:
    for name, digest in build.inputs.items():
        if found.get(name) and found[name] != digest:
            yield Finding(
                0,
                "warning",
                "input-changed",
                f"{name} has changed since the image was built",
                "get it from where it is kept, or see what differs in the end",
            )


def _find_base(
    stage: Stage, bases: Mapping[str, str], folder: Path, images: list[str], places: Places
) -> tuple[str, list[Finding]]:
    """Return what `From:` shall be, "" to leave it as it is, and what cannot be the same."""
    name = name_base(stage)
    digest = bases.get(name, "")
    agent, _, origin = name.partition(":")
    if not digest or not origin:
        reason = f"nobody wrote down which {origin} the image was built from: it may be another one by now"
        return "", [Finding(0, "warning", "base-unknown", reason)] if origin else []
    if agent in REGISTRY_SCHEMES:
        reference = replace(parse_reference(f"{agent}://{origin}"), digest=digest)
        return reference.engine_uri.removeprefix(f"{agent}://"), []
    if agent != "localimage":
        return "", []
    path = str(folder / origin)
    found = find_by_digest(digest.removeprefix(_DIGEST), [path, *images], places)
    if found is None:
        reason = f"the base {origin} is not the image that it was ({digest})"
        hint = "get that image, or see what differs in the end"
        return "", [Finding(0, "warning", "base-changed", reason, hint)] if Path(path).exists() else []
    return ("", []) if found == path else (found, [])
