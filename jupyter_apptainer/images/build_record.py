"""What an image was built from, kept in the image itself: recipe, digests of all that went into it, engine, flags.

A small object of a SIF beside the file system, so that it travels with the image, and a lock file can be made of it anywhere. No
secret is in it: of arguments that must not stay, only the names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .sif import read_json, read_sif
from .sif_write import Text

NAME = "jupyter-apptainer-build.json"
_FORMAT = 1


@dataclass(frozen=True)
class BuildRecord:
    """definition, build_args: what was built. host_args: names of what the host adds, such as its mirror.

    bases: what each stage begins with, by the name in its `From:`, as `sha256:…`; of a registry's name it is the manifest's digest.
    inputs: SHA-256 of each source of %files. compression: of the image's file system. epoch: None where times were not fixed.
    """

    definition: str
    build_args: Mapping[str, str] = field(default_factory=dict)
    host_args: tuple[str, ...] = ()
    bases: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    compression: str = "lz4"
    epoch: int | None = None
    has_host_settings: bool = False
    engine: str = ""
    made_with: str = ""

    def to_json(self) -> dict[str, Any]:
        """The same content for programs."""
        return {"format": _FORMAT, **asdict(self), "host_args": list(self.host_args)}

    def to_text(self) -> Text:
        """As an object of a SIF; the same record gives the same bytes."""
        return Text(NAME, json.dumps(self.to_json(), sort_keys=True, ensure_ascii=False).encode())


def parse_record(document: Mapping[str, Any]) -> BuildRecord | None:
    """Return the record that a document holds; None for one of another format."""
    if document.get("format") != _FORMAT or not _is_well_typed(document):
        return None
    values = {name: document[name] for name in BuildRecord.__dataclass_fields__}
    return BuildRecord(**{**values, "host_args": tuple(values["host_args"])})


def _is_well_typed(document: Mapping[str, Any]) -> bool:
    """An image may come from anybody."""
    texts = all(isinstance(document.get(name), str) for name in ("definition", "compression", "engine", "made_with"))
    tables = (document.get(name) for name in ("build_args", "bases", "inputs"))
    names = document.get("host_args")
    return (
        texts
        and all(isinstance(table, dict) and all(isinstance(each, str) for each in table.values()) for table in tables)
        and isinstance(names, list | tuple)
        and all(isinstance(name, str) for name in names)
        and isinstance(document.get("epoch", ""), int | None)
        and isinstance(document.get("has_host_settings"), bool)
    )


def read_record(image: str) -> BuildRecord | None:
    """Return what a SIF says about its build; None where it was made elsewhere. Raises what `read_sif` does."""
    sif = read_sif(image)
    found = next((each for each in sif.find("json") if each.name == NAME), None)
    return parse_record(read_json(sif, found)) if found else None
