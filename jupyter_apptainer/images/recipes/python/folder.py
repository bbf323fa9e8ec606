"""A folder as repo2docker knows it: what is in it decides how the image is made."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ....errors import SpecError
from ..dockerfile.context import Context, parse_ignore
from ..findings import Finding, sort_findings
from ..recipe import Recipe, load_definition, load_dockerfile, read_source
from .definition import STAGING, Extras
from .load import LEFT_OUT, load_environment, load_project, load_requirements
from .pypi import APT_NAME

DEFINITIONS = ("Apptainer", "Singularity", "apptainer.def", "singularity.def")
_ENVIRONMENTS = ("environment.yml", "environment.yaml")
# Files of repo2docker that have no counterpart here.
_OTHERS = ("start", "install.R", "Project.toml", "REQUIRE", "Pipfile", "setup.py", "default.nix", "DESCRIPTION")
_RUNTIME = re.compile(r"^python-(?P<version>\d+\.\d+)(?:\.\d+)?$")


def load_folder(
    folder: Path,
    build_args: Mapping[str, str] | None = None,
    *,
    base: str = "",
    environ: Mapping[str, str] | None = None,
    has_conda: bool = True,
) -> Recipe:
    """Read a folder: a definition file, else a Dockerfile, else an environment.yml, requirements.txt or pyproject.toml.

    As with repo2docker, a folder `binder` or `.binder` in it comes first, and apt.txt, runtime.txt and postBuild add to the
    Python ones.
    """
    if not folder.is_dir():
        raise SpecError(
            f"{folder} is no folder", hint="name a file with --def, --dockerfile, --environment or --requirements"
        )
    place = next((folder / name for name in ("binder", ".binder") if (folder / name).is_dir()), folder)
    definition = _find(place, DEFINITIONS)
    if definition:
        return load_definition(definition, build_args, folder)
    dockerfile = _find(place, ("Dockerfile", "Containerfile"))
    if dockerfile:
        return load_dockerfile(dockerfile, build_args, base=base, folder=folder)
    extras, findings = _read_extras(folder, place)
    python, refusal = _read_runtime(place)
    recipe = _load_python(place, folder, base, python, extras, environ, has_conda)
    if build_args:
        refusal.append(Finding(0, "error", "argument-unused", "--build-arg means nothing for a Python environment"))
    return replace(recipe, findings=sort_findings([*recipe.findings, *findings, *refusal]))


def _load_python(
    place: Path,
    folder: Path,
    base: str,
    python: str,
    extras: Extras,
    environ: Mapping[str, str] | None,
    has_conda: bool,
) -> Recipe:
    environment = _find(place, _ENVIRONMENTS)
    requirements = _find(place, ("requirements.txt",))
    project = _find(folder, ("pyproject.toml",))
    if environment:
        recipe = load_environment(
            environment, base=base, folder=folder, extras=extras, environ=environ, has_conda=has_conda
        )
        if requirements:
            note = Finding(
                0, "note", "requirements-left-out", "requirements.txt is left out: environment.yml comes first"
            )
            recipe = replace(recipe, findings=(*recipe.findings, note))
    elif requirements:
        recipe = load_requirements(
            requirements, base=base, folder=folder, python=python, extras=extras, environ=environ
        )
    elif project:
        recipe = load_project(project, base=base, python=python, extras=extras, environ=environ)
    else:
        raise SpecError(
            f"there is no recipe in {folder}",
            hint="known: Apptainer or Singularity (definition files), Dockerfile, environment.yml, requirements.txt, pyproject.toml",
        )
    return recipe


def _read_extras(folder: Path, place: Path) -> tuple[Extras, list[Finding]]:
    findings = [
        Finding(0, "warning", "file-left-out", f"{name} is left out: it has no counterpart")
        for name in _OTHERS
        if (place / name).is_file()
    ]
    packages: list[str] = []
    apt = place / "apt.txt"
    for number, raw in enumerate(read_source(apt).splitlines() if apt.is_file() else (), 1):
        for word in raw.split("#")[0].split():
            packages.append(word)
            if not APT_NAME.match(word):
                findings.append(Finding(number, "error", "apt-package", f"apt.txt: {word!r} is no name of a package"))
    script = place / "postBuild"
    if not script.is_file():
        return Extras(apt=packages), findings
    # It runs in a copy of the folder, as with repo2docker, where that copy stays; here the folder is bound at run time.
    selection = Context(folder.absolute(), parse_ignore(LEFT_OUT)).select(".")
    inside = shlex.quote(str(script.relative_to(folder)))
    files = [(source, f"{STAGING}/folder/{target}") for source, target in selection.files]
    lines = [f"cd {STAGING}/folder", f"chmod +x {inside}", f"./{inside}"]
    return Extras(apt=packages, files=files, script=lines), findings


def _read_runtime(place: Path) -> tuple[str, list[Finding]]:
    path = place / "runtime.txt"
    text = read_source(path).strip() if path.is_file() else ""
    match = _RUNTIME.match(text)
    if not text or match:
        return match["version"] if match else "", []
    return "", [
        Finding(
            1, "error", "runtime", f"runtime.txt: {text!r} is not known here", "write python-3.12, or use a Dockerfile"
        )
    ]


def _find(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)
