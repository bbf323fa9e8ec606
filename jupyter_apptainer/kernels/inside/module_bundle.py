"""Runs inside the container: serves the code of many modules from one file, which is quicker than a search through a mounted image.

The file was written by the probe of the image, and is read once, by the fork server, at its start. Python 3.8 and newer; nothing is imported here that Python
has not loaded by itself: it would be searched for.
"""

from __future__ import annotations

import marshal
import mmap
import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    import types
    from collections.abc import Collection, Sequence
    from typing import Any

# Of each module: file, file of the compiled code, folders of a package, size and time of the file, place of its code.
ORIGIN, CACHED, FOLDERS, SIZE, MTIME, OFFSET, LENGTH = range(7)
HEAD_BYTES = 8


class Bundle:
    """Finds modules in the file. An entry of `sys.meta_path` while the server imports."""

    def __init__(self, path: str) -> None:
        with open(path, "rb") as stream:
            self.data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self.start = HEAD_BYTES + int.from_bytes(self.data[:HEAD_BYTES], "little")
        self.magic, self.path, self.modules, self.plain = marshal.loads(self.data[HEAD_BYTES : self.start])

    def is_fit(self) -> bool:
        """Say whether this Python would look in the same places, and understands the code."""
        return bool(self.magic == MAGIC_NUMBER and self.path == sys.path)

    def drop_changed(self, sealed: Collection[str] = ()) -> None:
        """Leave out what is not in the container as it was in the image: changed or hidden by a layer or a bind.

        sealed: folders that are known to be as in the image.
        """
        hidden = set(self.list_hidden())
        self.modules = {
            name: entry
            for name, entry in self.modules.items()
            if name.partition(".")[0] not in hidden
            and (os.path.dirname(entry[ORIGIN]) in sealed or is_unchanged(entry))
        }

    def list_stamps(self, sealed: Collection[str]) -> dict[str, tuple[int, float]]:
        """Return size and time of the files in these folders, as they were in the image, of modules that are loaded."""
        return {
            entry[ORIGIN]: (entry[SIZE], entry[MTIME])
            for name, entry in self.modules.items()
            if name in sys.modules and os.path.dirname(entry[ORIGIN]) in sealed
        }

    def list_hidden(self) -> list[str]:
        """Return the modules that an earlier folder of the search has as well."""
        listings = []
        for folder in self.path:
            try:
                listings.append((folder, {name.partition(".")[0] for name in os.listdir(folder)}))
            except OSError:
                continue
        found = []
        for name, entry in self.modules.items():
            if "." not in name:
                place = entry[ORIGIN] if entry[FOLDERS] is None else os.path.dirname(entry[ORIGIN])
                folder = os.path.dirname(place)
                earlier = listings[: next((i for i, (path, _) in enumerate(listings) if path == folder), None)]
                found += [name for _, names in earlier if name in names]
        return found

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """Called by Python for each module that is imported."""
        entry = self.modules.get(name)
        if entry is None:
            return None
        loader = BundledLoader(name, entry[ORIGIN])
        loader.bundle = self
        spec = ModuleSpec(name, loader, origin=entry[ORIGIN], is_package=entry[FOLDERS] is not None)
        if entry[FOLDERS] is not None:
            spec.submodule_search_locations = list(entry[FOLDERS])
        spec.cached = entry[CACHED]
        spec.has_location = True
        return spec

    def read_code(self, name: str) -> Any:
        """Return the code of a module."""
        entry = self.modules[name]
        begin = self.start + entry[OFFSET]
        return marshal.loads(self.data[begin : begin + entry[LENGTH]])


class BundledLoader(SourceFileLoader):
    """Python's own loader, but that its code comes from the bundle the first time."""

    bundle: Bundle | None = None

    def get_code(self, fullname: str) -> Any:
        """Called by Python."""
        bundle, self.bundle = self.bundle, None
        return super().get_code(fullname) if bundle is None else bundle.read_code(fullname)


def open_bundle(path: str, is_layered: bool, changed: Collection[str] | None) -> Bundle | None:
    """Return what finds modules in the file; None where it does not fit. is_layered: what is in the image may be hidden or changed.

    changed: in these folders, and nowhere else; None: nobody knows.
    """
    try:
        bundle = Bundle(path)
        if not bundle.is_fit():
            return None
        bundle.plain = frozenset() if changed is None else bundle.plain.difference(changed)
        if is_layered:
            bundle.drop_changed(bundle.plain)
    except (OSError, ValueError, EOFError, TypeError, LookupError):
        # Not a bundle that we know.
        return None
    return bundle


def is_unchanged(entry: tuple[Any, ...]) -> bool:
    """Say whether the module's file is that of the image."""
    try:
        status = os.stat(entry[ORIGIN])
    except OSError:
        return False
    return bool((status.st_size, status.st_mtime) == (entry[SIZE], entry[MTIME]))
