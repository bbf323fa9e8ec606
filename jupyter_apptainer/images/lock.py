"""A lock file: all that is needed to make an image again, or to prove that one is the same.

JSON, the same for the same image, and small enough to be kept beside a notebook or inside of it; `image-lock.schema.json` describes it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..engine.locate import EngineInfo
from ..errors import ImageInvalid, SpecError
from ..places import Places
from .build_record import BuildRecord, parse_record, read_record
from .catalogue import Image, load_image
from .digest import compute_digest
from .inventory import read_inventory
from .packages import Package

FORMAT = 1
# In a notebook's metadata.
NOTEBOOK_FIELD = "apptainer_lock"
_ENGINE_LABELS = {"apptainer": "apptainer", "singularity": "singularity-ce"}
_VERSION_LABEL = "org.label-schema.usage.{}.version"
_MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class LockedImage:
    """Which image it is. name: of its file. sha256: of the file. files_sha256: of all files in it, whatever packs them.

    uri: its name in a registry with the digest there, where it was pulled.
    """

    name: str
    sha256: str
    files_sha256: str
    size_bytes: int
    created_at: int
    architecture: str
    uri: str = ""


@dataclass(frozen=True)
class Lock:
    """build: what it was built from, as far as the image says. packages: what is installed in it.

    folders: digests of the first two levels of folders.
    """

    image: LockedImage
    build: BuildRecord
    packages: tuple[Package, ...]
    folders: Mapping[str, str]

    def to_json(self) -> dict[str, object]:
        """For the file; what is empty is left out of packages."""
        rows = [{name: value for name, value in asdict(each).items() if value} for each in self.packages]
        return {
            "format": FORMAT,
            "image": asdict(self.image),
            "build": self.build.to_json(),
            "packages": rows,
            "folders": dict(self.folders),
        }


def make_lock(engine: EngineInfo, places: Places, path: str) -> Lock:
    """Read an image to its end. Raises what `check_image` does; ImageInvalid for a folder, whose content can change."""
    image = load_image(places, path)
    if image.kind != "sif":
        raise ImageInvalid(
            f"{path} is a {image.kind}, and only SIF files can be locked", hint="build a .sif of it first"
        )
    inventory = read_inventory(engine, path)
    locked = LockedImage(
        name=os.path.basename(path),
        sha256=compute_digest(path, places),
        files_sha256=inventory.compute_digest(),
        size_bytes=image.size_bytes,
        created_at=image.content.created_at or 0,
        architecture=image.content.architecture or "",
        uri=_name_uri(image),
    )
    return Lock(
        locked, read_record(path) or _guess_record(image), inventory.packages, inventory.compute_folder_digests()
    )


def _name_uri(image: Image) -> str:
    if not image.pulled_from:
        return ""
    name = image.pulled_from.split("@")[0]
    return f"{name}@{image.digest}" if image.digest else name


def _guess_record(image: Image) -> BuildRecord:
    """What any image says about its build: definition and engine."""
    labels = image.content.labels
    engines = (
        f"{flavour} {labels[name]}"
        for key, flavour in _ENGINE_LABELS.items()
        if (name := _VERSION_LABEL.format(key)) in labels
    )
    return BuildRecord(
        definition=image.content.definition or "",
        compression=image.content.compression or "gzip",
        engine=next(engines, ""),
    )


# --- files


def save_lock(lock: Lock, path: Path) -> None:
    """Write the file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(lock.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_lock(path: Path) -> Lock:
    """Read a lock file, or a notebook with a lock in its metadata. Raises SpecError, which names the field."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SpecError(f"{path} is too large to be a lock file")
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(
            f"there is no file {path}", hint="make it: `jupyter apptainer image lock IMG -o FILE`"
        ) from None
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path} is no lock file: {error}") from error
    if path.suffix == ".ipynb":
        document = _find_in_notebook(document, path)
    return parse_lock(document, str(path))


def _find_in_notebook(document: object, path: Path) -> object:
    metadata = document.get("metadata") if isinstance(document, dict) else None
    if not isinstance(metadata, dict) or NOTEBOOK_FIELD not in metadata:
        raise SpecError(
            f"the notebook {path} has no lock in its metadata",
            hint=f"write one: `jupyter apptainer image lock IMG --notebook {path}`",
        )
    return metadata[NOTEBOOK_FIELD]


def parse_lock(document: object, origin: str) -> Lock:
    """Make a lock of a JSON document. Raises SpecError."""
    record = _Fields(document, origin, "")
    if record.take("format", int) != FORMAT:
        raise SpecError(
            f"{origin}: format: this version of jupyter-apptainer reads {FORMAT}", hint="update jupyter-apptainer"
        )
    image = _Fields(record.take("image", dict), origin, "image.")
    locked = LockedImage(
        **{name: image.take(name, str) for name in ("name", "sha256", "files_sha256", "architecture", "uri")},
        **{name: image.take(name, int) for name in ("size_bytes", "created_at")},
    )
    build = parse_record(record.take("build", dict))
    if build is None:
        raise SpecError(f"{origin}: build: it is not complete, or of another version")
    rows = record.take("packages", list)
    packages = tuple(_parse_package(_Fields(row, origin, f"packages[{index}].")) for index, row in enumerate(rows))
    folders = _Fields(record.take("folders", dict), origin, "folders.")
    return Lock(locked, build, packages, {name: folders.take(name, str) for name in folders.names})


def _parse_package(row: _Fields) -> Package:
    needed = {name: row.take(name, str) for name in ("manager", "name", "version")}
    optional = {name: row.take(name, str, "") for name in ("place", "source", "sha256")}
    return Package(**needed, **optional)


class _Fields:
    """An object of the document, and where it stands there."""

    def __init__(self, document: object, origin: str, prefix: str) -> None:
        self._origin = origin
        self._prefix = prefix
        if not isinstance(document, Mapping):
            raise SpecError(f"{origin}: {prefix.rstrip('.') or 'the document'}: expected an object")
        self._document: Mapping[str, Any] = document

    @property
    def names(self) -> list[str]:
        return list(self._document)

    def take(self, name: str, kind: type, default: object = None) -> Any:
        value = self._document.get(name, default)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise SpecError(f"{self._origin}: {self._prefix}{name}: expected {kind.__name__}, found {value!r:.80}")
        return value
