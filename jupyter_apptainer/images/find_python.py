"""Which Python and ipykernel an image has, by the names of its files: nothing is started.

It is the Python that a program of that name would be: the first one in the folders that the image's PATH names, else in the usual ones. A kernel that
is checked or started asks that Python itself, and knows more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from .identity import ImageIdentity
from .sif import read_sif
from .squashfs_tree import SquashfsTree, UnreadableTree

_USUAL = ("/opt/venv", "/opt/env", "/opt/conda", "/usr/local", "/usr")
_PATH = re.compile(r"\bPATH=[\"']?([^\"'\n;]+)")
_PYTHON = re.compile(r"python(\d\.\d+)")
_IPYKERNEL = re.compile(r"ipykernel-([\w.!+]+?)(?:-py[\d.]+)?\.(?:dist|egg)-info")
_MAX_PREFIXES = 20
ListNames = Callable[[str], list[str]]


def find_python(identity: ImageIdentity, environment: str | None) -> tuple[str | None, str | None]:
    """Return the versions of Python, as `3.11`, and of its ipykernel; None for what was not found.

    environment: what the image sets for its programs.
    """
    prefixes = _list_prefixes(environment or "")
    if identity.kind == "sandbox":
        return _search(lambda path: _list_folder(identity.real_path, path), prefixes)
    try:
        system = read_sif(identity.path).system_partition if identity.kind == "sif" else None
        if identity.kind == "sif" and (
            system is None or not system.partition or system.partition.file_system != "squashfs"
        ):
            return None, None
        with SquashfsTree(identity.real_path, system.offset if system else 0) as tree:
            return _search(tree.list_names, prefixes)
    except (UnreadableTree, OSError):
        return None, None


def _list_prefixes(environment: str) -> list[str]:
    words = (word for match in _PATH.finditer(environment) for word in match[1].split(":"))
    named = [word.removesuffix("/bin") for word in words if word.startswith("/") and word.endswith("/bin")]
    return list(dict.fromkeys([*named, *_USUAL]))[:_MAX_PREFIXES]


def _search(list_names: ListNames, prefixes: Iterable[str]) -> tuple[str | None, str | None]:
    for prefix in prefixes:
        matches = filter(None, map(_PYTHON.fullmatch, list_names(f"{prefix}/bin")))
        versions = sorted((match[1] for match in matches), key=lambda text: [int(part) for part in text.split(".")])
        if versions:
            folders = _iter_packages(prefix, versions[-1])
            found = (match for folder in folders for match in map(_IPYKERNEL.fullmatch, list_names(folder)) if match)
            first = next(found, None)
            return versions[-1], first[1] if first else None
    return None, None


def _iter_packages(prefix: str, version: str) -> Iterator[str]:
    yield f"{prefix}/lib/python{version}/site-packages"
    if prefix == "/usr":
        yield f"/usr/local/lib/python{version}/dist-packages"
        yield "/usr/lib/python3/dist-packages"


def _list_folder(root: str, path: str) -> list[str]:
    """A link could lead to a folder of the host."""
    folder = os.path.join(os.path.realpath(root), path.lstrip("/"))
    if os.path.realpath(folder) != folder:
        return []
    with suppress(OSError):
        return os.listdir(folder)
    return []
