"""One way in for all kinds of recipes: what the command line, magics and servers call with the words of a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from .findings import Finding, sort_findings
from .python.folder import load_folder
from .python.load import load_environment, load_project, load_requirements
from .recipe import Recipe, load_definition, load_dockerfile

Kind = Literal["def", "dockerfile", "environment", "requirements", "folder"]


def load_recipe(
    kind: Kind,
    path: Path,
    *,
    build_args: Mapping[str, str] | None = None,
    base: str = "",
    environ: Mapping[str, str] | None = None,
    has_conda: bool = True,
) -> Recipe:
    """Read and check a recipe; nothing is built.

    kind: what `path` is. "requirements" may also be a pyproject.toml. base: the image to begin with, where that is a choice:
    `NAME` of a registry, a URI, a file or folder, or "mirror" for a system made of the host's packages.
    has_conda: false to make an environment.yml with pip and apt, of what PyPI and Debian are known to have.
    Raises SpecError where there is nothing to read; what is wrong in it is among the recipe's findings.
    """
    match kind:
        case "def":
            recipe = load_definition(path, build_args)
            refused = [_refuse("--base", "a definition file names its own in `From:`")] if base else []
        case "dockerfile":
            return load_dockerfile(path, build_args, base=base)
        case "environment":
            recipe = load_environment(path, base=base, environ=environ, has_conda=has_conda)
            refused = _refuse_arguments(build_args)
        case "requirements":
            load = load_project if path.name == "pyproject.toml" else load_requirements
            recipe = load(path, base=base, environ=environ)
            refused = _refuse_arguments(build_args)
        case "folder":
            return load_folder(path, build_args, base=base, environ=environ, has_conda=has_conda)
    return replace(recipe, findings=sort_findings([*recipe.findings, *refused]))


def _refuse_arguments(build_args: Mapping[str, str] | None) -> list[Finding]:
    return [_refuse("--build-arg", "it is for definition files and Dockerfiles")] if build_args else []


def _refuse(option: str, reason: str) -> Finding:
    return Finding(0, "error", "option-unfit", f"{option} means nothing here: {reason}", "leave it out")
