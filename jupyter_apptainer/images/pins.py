"""Versions that a build shall take: for pip, uv and apt as they read them, in a folder that a build sees at /mnt.

They work through variables, so that a recipe of any kind is rebuilt as it is, and nothing of them stays in the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .packages import Package

# Below 1000: a version that is newer in the base is kept; apt-get refuses to go back without being told so.
_PRIORITY = 999


def write_pins(packages: Iterable[Package], folder: Path, shown_at: str) -> dict[str, str]:
    """Write the files to `folder` and return the variables that lead to them. shown_at: where the build sees the folder."""
    found = list(packages)
    constraints, preferences = build_constraints(found), build_preferences(found)
    variables = {}
    folder.mkdir()
    if constraints:
        (folder / "constraints.txt").write_text(constraints, encoding="utf-8")
        variables = dict.fromkeys(("PIP_CONSTRAINT", "UV_CONSTRAINT"), f"{shown_at}/constraints.txt")
    if preferences:
        (folder / "preferences").write_text(preferences, encoding="utf-8")
        (folder / "apt.conf").write_text(f'Dir::Etc::Preferences "{shown_at}/preferences";\n', encoding="utf-8")
        variables["APT_CONFIG"] = f"{shown_at}/apt.conf"
    return variables


def build_constraints(packages: Sequence[Package]) -> str:
    """Return a constraints file for pip. A name with two versions in two libraries is left free, but for those of a system."""
    python = [each for each in packages if each.manager == "python"]
    own = [each for each in python if not each.place.endswith("dist-packages")] or python
    versions: dict[str, set[str]] = {}
    for each in own:
        versions.setdefault(each.name, set()).add(each.version)
    return "".join(f"{name}=={next(iter(found))}\n" for name, found in sorted(versions.items()) if len(found) == 1)


def build_preferences(packages: Sequence[Package]) -> str:
    """Return preferences for apt. A version that the mirror no longer has is no wish that could be met, and is passed over."""
    dpkg = (each for each in packages if each.manager == "dpkg")
    return "\n".join(f"Package: {each.name}\nPin: version {each.version}\nPin-Priority: {_PRIORITY}\n" for each in dpkg)


def list_pins(packages: Sequence[Package]) -> Mapping[str, str]:
    """Return by manager what its own tools read: requirements, an explicit list for conda, `name=version` for apt and others."""
    return {
        "python": build_constraints(packages),
        "conda": "@EXPLICIT\n" + "".join(f"{each.source}\n" for each in packages if each.manager == "conda"),
        "dpkg": "".join(f"{each.name}={each.version}\n" for each in packages if each.manager == "dpkg"),
    }
