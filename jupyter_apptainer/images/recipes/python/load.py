"""Recipes of Python environments, read from files of this machine, with the base image that fits."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from ....engine.apt import find_mirror, load_os_release
from ....engine.step import StepError
from ....errors import SpecError
from ...host_settings import load_host_settings
from ...starter import choose_debian_source, is_registry_reachable
from ..base import MIRROR, Base, parse_base
from ..dockerfile.context import Context, parse_ignore
from ..findings import Finding, sort_findings
from ..recipe import Recipe, check_translation, read_source, resolve_base
from ..write import build_argument
from .definition import STAGING, BaseSystem, Extras, build_conda_definition, build_pip_definition
from .environment import Environment, parse_environment
from .pypi import translate_packages
from .requirements import Requirements

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYTHON_IMAGE = "docker.io/library/python:{version}-slim"
CONDA_IMAGE = "docker.io/mambaorg/micromamba:latest"
DEFAULT_PYTHON = "3.12"
_PYTHONS = ("3.12", "3.13", "3.11", "3.10", "3.14", "3.9")
# What of a project's folder is never part of it.
LEFT_OUT = "**/.git\n**/__pycache__\n**/.venv\n**/node_modules\n**/*.sif\n**/.ipynb_checkpoints\n**/*.egg-info\n"
_TOML_LINE = re.compile(r"line (\d+)")


def load_requirements(
    path: Path,
    *,
    base: str = "",
    python: str = "",
    folder: Path | None = None,
    extras: Extras | None = None,
    environ: Mapping[str, str] | None = None,
) -> Recipe:
    """Read a requirements.txt. folder: of all files that it may name, by default its own. base: an image's name, "mirror", or "" for what can be reached. python: as in "3.11"."""
    read_source(path)
    place = (folder or path.parent).absolute()
    requirements = Requirements(place)
    requirements.read(path)
    system, arguments = choose_system(base, PYTHON_IMAGE.format(version=python or DEFAULT_PYTHON), environ)
    definition = build_pip_definition(system, requirements.lines, requirements.files, extras or Extras())
    return _conclude(path, place, definition, requirements.findings, arguments)


def load_environment(
    path: Path,
    *,
    base: str = "",
    folder: Path | None = None,
    extras: Extras | None = None,
    environ: Mapping[str, str] | None = None,
    has_conda: bool = True,
) -> Recipe:
    """Read an environment.yml.

    folder: of all files that it may name, by default its own. base: an image with micromamba, mamba or conda; "" for micromamba's own.
    has_conda: whether conda makes the environment, or pip and apt with what PyPI and Debian are known to have of it.
    """
    if base == MIRROR and has_conda:
        raise SpecError(
            "a system from the mirror has no conda", hint="choose an image that has one with --base, or add --pypi"
        )
    place = (folder or path.parent).absolute()
    found = parse_environment(read_source(path), path.absolute(), place)
    if not has_conda:
        return _load_from_pypi(path, place, found, base, extras or Extras(), environ)
    system, arguments = choose_system(base or CONDA_IMAGE, CONDA_IMAGE, environ)
    files = found.pip.files if found.pip else []
    below = str(path.absolute().parent.relative_to(place))
    definition = build_conda_definition(system, found.text, below, files, found.variables, extras or Extras())
    return _conclude(path, place, definition, found.findings, arguments)


def _load_from_pypi(
    path: Path, place: Path, found: Environment, base: str, extras: Extras, environ: Mapping[str, str] | None
) -> Recipe:
    translation = translate_packages(found.packages)
    wanted = translation.python
    version, refusal = _choose_python("", wanted)
    findings = [*translation.findings, *found.findings, *refusal]
    if any(finding.severity == "error" for finding in findings):
        return Recipe(path, "", place, findings=sort_findings(findings))
    system, arguments = choose_system(base, PYTHON_IMAGE.format(version=version), environ)
    own, files = (found.pip.lines, found.pip.files) if found.pip else ([], [])
    lines = [*translation.lines, *own]
    definition = build_pip_definition(
        system, lines, files, extras, python=wanted, variables=found.variables, packages=translation.system
    )
    return _conclude(path, place, definition, findings, arguments)


def load_project(
    path: Path,
    *,
    base: str = "",
    python: str = "",
    extras: Extras | None = None,
    environ: Mapping[str, str] | None = None,
) -> Recipe:
    """Read a pyproject.toml: its project is installed, with its dependencies, from the folder that the file is in."""
    findings, wanted = _check_project(read_source(path))
    version, refusal = _choose_python(python, wanted)
    findings += refusal
    folder = path.absolute().parent
    if findings:
        return Recipe(path, "", folder, findings=sort_findings(findings))
    selection = Context(folder, parse_ignore(LEFT_OUT)).select(".")
    given = extras or Extras()
    files = [(source, f"{STAGING}/project/{target}") for source, target in selection.files]
    if selection.links:
        findings.append(Finding(0, "note", "links", f"{len(selection.links)} links in the folder are left out"))
    system, arguments = choose_system(base, PYTHON_IMAGE.format(version=version), environ)
    definition = build_pip_definition(system, [], [], replace(given, files=(*given.files, *files)), project="project")
    return _conclude(path, folder, definition, findings, arguments)


def choose_system(
    base: str, image: str, environ: Mapping[str, str] | None = None
) -> tuple[BaseSystem, Mapping[str, str]]:
    """Return what to begin with, and the arguments that it needs but that must not stay in the image.

    Where no base is named: `image` from the registry where that answers, else a system from this host's mirror.
    """
    chosen = base or (image if _can_fetch(environ) else MIRROR)
    if chosen != MIRROR:
        return BaseSystem(parse_base(resolve_base(chosen))), {}
    try:
        source = choose_debian_source(find_mirror(), load_os_release())
    except StepError as error:
        raise SpecError(
            f"there is nothing to begin with: no registry can be reached, and {error.reason}",
            hint="name an image with --base",
        ) from error
    headers = {
        "OSVersion": build_argument("SUITE"),
        "MirrorURL": build_argument("MIRROR"),
        "Include": " ".join(filter(None, ["python3 ca-certificates", source.arguments["PACKAGES"]])),
    }
    arguments = {name: source.arguments[name] for name in ("SUITE", "MIRROR")} | {"APT_SOURCE": source.apt_source}
    return BaseSystem(Base("debootstrap", ""), headers, build_argument("APT_SOURCE")), arguments


def _can_fetch(environ: Mapping[str, str] | None) -> bool:
    return is_registry_reachable(load_host_settings(os.environ if environ is None else environ))


def _conclude(
    path: Path, folder: Path, definition: str, findings: list[Finding], arguments: Mapping[str, str]
) -> Recipe:
    recipe = Recipe(path, definition, folder, findings=sort_findings(findings), secret_args=arguments)
    return check_translation(recipe) if not recipe.errors else recipe


def _check_project(text: str) -> tuple[list[Finding], str]:
    """Return what is wrong in a pyproject.toml, and which Python it wants."""
    try:
        content: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = _TOML_LINE.search(str(error))
        return [Finding(int(match[1]) if match else 0, "error", "syntax", f"not TOML: {error}")], ""
    project = content.get("project")
    if not isinstance(project, dict) and "build-system" not in content:
        reason = "there is neither [project] nor [build-system]: nothing to install"
        return [Finding(0, "error", "no-project", reason, "put what you need into a requirements.txt")], ""
    wanted = project.get("requires-python", "") if isinstance(project, dict) else ""
    return [], str(wanted)


def _choose_python(python: str, wanted: str) -> tuple[str, list[Finding]]:
    try:
        allowed = SpecifierSet(wanted)
    except InvalidSpecifier:
        reason = f"requires-python: {wanted!r} is no range of versions"
        return DEFAULT_PYTHON, [Finding(0, "error", "requires-python", reason)]
    if python:
        is_fine = allowed.contains(f"{python}.99" if python.count(".") == 1 else python)
        reason = f"the project wants Python {wanted}, and {python} is asked for"
        return python, [] if is_fine else [Finding(0, "error", "requires-python", reason)]
    fitting = (version for version in _PYTHONS if allowed.contains(f"{version}.99"))
    return next(fitting, DEFAULT_PYTHON), []
