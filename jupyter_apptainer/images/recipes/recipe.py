"""A recipe of any language, read and checked: the definition that will be built, where from, and what was found on the way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...errors import SpecError
from ..packages import Package
from .base import MIRROR
from .check import check_definition
from .check_files import check_files
from .definition import parse_definition, resolve
from .dockerfile.context import Context
from .dockerfile.translate import translate_dockerfile
from .findings import Finding, sort_findings


@dataclass(frozen=True)
class PinnedBase:
    """A `From:` that names an image by its digest, or a file that it is in now, and what somebody wrote there.

    line, written: the whole line in the definition, now and before. value, original: the names, with arguments replaced.
    """

    line: str
    written: str
    value: str
    original: str


# Written by the translation, above each step.
_DOCKERFILE_LINE = re.compile(r"\s*# Dockerfile line (\d+)$")


@dataclass(frozen=True)
class Recipe:
    """source: the file or folder that it was read from. definition: "" where an error keeps it from being made.

    folder: where relative paths start from. build_args: for the engine, which replaces them in the definition.
    secret_args: the same, for what must not stay in the image, such as a mirror's name.
    pinned: bases that a lock has replaced. pins: packages that scripts shall install in these versions.
    """

    source: Path
    definition: str
    folder: Path
    build_args: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    secret_args: Mapping[str, str] = field(default_factory=dict)
    pinned: tuple[PinnedBase, ...] = ()
    pins: tuple[Package, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that keep it from being built."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


def load_definition(path: Path, build_args: Mapping[str, str] | None = None, folder: Path | None = None) -> Recipe:
    """Read a definition file. folder: where the engine runs; by default the current one, as with the engine itself."""
    text = read_source(path)
    place = (folder or Path.cwd()).absolute()
    given = dict(build_args or {})
    resolved = resolve(parse_definition(text), given)
    findings = [*check_definition(text, given), *check_files(resolved, place, path.absolute().parent)]
    return Recipe(path, text, place, given, sort_findings(findings))


def load_dockerfile(
    path: Path,
    build_args: Mapping[str, str] | None = None,
    *,
    base: str = "",
    target: str = "",
    folder: Path | None = None,
) -> Recipe:
    """Read a Dockerfile. folder: what COPY takes from, by default the Dockerfile's own. base: an image instead of the last stage's own."""
    place = (folder or path.parent).absolute()
    text = read_source(path)
    base_name = resolve_base(base)
    translation = translate_dockerfile(
        text, Context.load(place, path), build_args=build_args, base=base_name, target=target
    )
    return check_translation(Recipe(path, translation.definition, place, findings=translation.findings))


def check_translation(recipe: Recipe) -> Recipe:
    """Add to a recipe of another language what the files of this machine keep its definition from.

    The lines of the definition are not the lines that somebody wrote, so those findings name none.
    """
    if not recipe.definition:
        return recipe
    found = check_files(resolve(parse_definition(recipe.definition), recipe.secret_args), recipe.folder)
    # Links are made anew by what translates, and what follows a link on purpose is one file.
    errors = (replace(finding, line=0) for finding in found if finding.severity == "error")
    return replace(recipe, findings=sort_findings([*recipe.findings, *errors]))


def name_lines(recipe: Recipe, first: int, last: int) -> str:
    """Return where a recipe's author finds these lines of its definition: in a file that is none, they are others or none."""
    lines = recipe.definition.splitlines()
    # The mark stands above its step.
    above = list(filter(None, map(_DOCKERFILE_LINE.match, lines[:first])))
    marked = above[-1] if above else None
    if marked:
        return f"{recipe.source}:{marked[1]}"
    if not recipe.source.is_file() or recipe.source.read_text(encoding="utf-8", errors="replace") != recipe.definition:
        return str(recipe.source)
    return f"{recipe.source}:{first}" + (f"-{last}" if last != first else "")


def resolve_base(base: str) -> str:
    """Make the name of a base image that is a file absolute: relative ones are the caller's, not the recipe's."""
    if base == MIRROR:
        raise SpecError(
            "a Dockerfile cannot begin with this host's mirror", hint="build an image from it first, and name that"
        )
    for agent in ("", "docker-archive:", "oci-archive:", "oci:", "localimage:"):
        path = Path(base.removeprefix(agent)).expanduser()
        if base.startswith(agent) and base and path.exists():
            return f"{agent or 'localimage:'}{path.absolute()}"
    return base


def read_source(path: Path) -> str:
    """Read a recipe's text."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(f"there is no file {path}", hint="check the path") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path} is not a text file", hint="is it an image already?") from None
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from error
