"""In what the contents of two images differ: packages by version, files one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from .inventory import Entry, Inventory
from .packages import Package


@dataclass(frozen=True)
class PackageChange:
    """first, second: versions; None where one side does not have it."""

    manager: str
    place: str
    name: str
    first: str | None
    second: str | None


@dataclass(frozen=True)
class FileChanges:
    """Paths, in order. changed: other content, target, permissions or owner."""

    removed: tuple[str, ...]
    added: tuple[str, ...]
    changed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.removed or self.added or self.changed)


def compare_packages(first: Iterable[Package], second: Iterable[Package]) -> list[PackageChange]:
    """Return what is installed on one side only, or in another version."""
    one, other = _index(first), _index(second)
    keys = sorted({*one, *other})
    return [PackageChange(*key, one.get(key), other.get(key)) for key in keys if one.get(key) != other.get(key)]


def _index(packages: Iterable[Package]) -> dict[tuple[str, str, str], str]:
    return {(each.manager, each.place, each.name): each.version for each in packages}


def compare_files(first: Inventory, second: Inventory) -> FileChanges:
    """Return which files differ. Where one side is a folder of the host, owners are not compared: there they are the user's."""
    one, other = first.files, second.files
    both = sorted(one.keys() & other.keys())
    return FileChanges(
        removed=tuple(sorted(one.keys() - other.keys())),
        added=tuple(sorted(other.keys() - one.keys())),
        changed=tuple(path for path in both if not _is_same(path, one, other)),
    )


def _is_same(path: str, first: Mapping[str, Entry], second: Mapping[str, Entry]) -> bool:
    one, other = first[path], second[path]
    if one.owner is None or other.owner is None:
        one, other = replace(one, owner=None), replace(other, owner=None)
    return one == other
