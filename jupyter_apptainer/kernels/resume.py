"""A launch plan on disk, for whoever takes the kernel over: it must restart the kernel as it was started, in the same instance.

Kept beside the kernel's own folder and not in it, because what is read back decides what runs on the host, and the kernel can write
to its folder. Mode 0600: the plan holds the kernel's variables.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import AttachError
from ..instances.model import LedgerEntry
from ..places import Places, make_private_dir, write_private_file
from .plan import LaunchPlan

_FILE = "plan.json"


def find_kept_dir(places: Places, entry_name: str) -> str:
    """Return the folder for what a new owner of the kernel needs."""
    return str(places.runtime / f"kept-{entry_name}")


def save_plan(places: Places, plan: LaunchPlan) -> None:
    """Write the plan of a kernel that may outlive its owner."""
    folder = make_private_dir(Path(find_kept_dir(places, plan.entry_name)))
    write_private_file(folder / _FILE, json.dumps(dataclasses.asdict(plan)))


def load_plan(places: Places, entry: LedgerEntry) -> LaunchPlan:
    """Read it. Raises AttachError where it is not there, or was written by a version that had other plans."""
    path = Path(find_kept_dir(places, entry.name), _FILE)
    try:
        plan = _decode(LaunchPlan, json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AttachError(
            f"the kernel of {entry.label or entry.kernel_id} cannot be taken over: its plan {path} cannot be read ({error})",
            hint=f"save its work with `jupyter console --existing {entry.connection_file}`, then end it with "
            f"`jupyter apptainer kernel stop {entry.kernel_id}`",
        ) from error
    assert isinstance(plan, LaunchPlan)
    return plan


def _decode(kind: Any, value: Any) -> Any:
    """Build what the annotation `kind` says from JSON."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(**{field.name: _decode(hints[field.name], value[field.name]) for field in dataclasses.fields(kind)})
    if origin is tuple:
        kinds = [arguments[0]] * len(value) if arguments[1:] == (...,) else arguments
        return tuple(_decode(item_kind, item) for item_kind, item in zip(kinds, value, strict=True))
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _decode_union(arguments, value)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return {name: _decode(arguments[1], item) for name, item in value.items()}
    return value


def _decode_union(arguments: tuple[Any, ...], value: Any) -> Any:
    compound = [kind for kind in arguments if typing.get_origin(kind) or dataclasses.is_dataclass(kind)]
    return _decode(compound[0], value) if compound and not isinstance(value, str | int | float) else value
