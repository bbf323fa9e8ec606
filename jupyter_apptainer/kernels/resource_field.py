"""The grammar of the field `resources`: an object of limits, each of which may be missing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

from .resources import format_size
from .wishes import UNLIMITED, ResourcesWish

if TYPE_CHECKING:
    from .fields import Problems

MEMORY_PATTERN = r"^[0-9]+(?:\.[0-9]+)?[KMGTkmgt](?:i?[Bb])?$"
# Python with ipykernel needs some 60 MiB and a dozen threads before it has done anything.
MINIMUM_MEMORY_BYTES = 128 << 20
MINIMUM_PIDS = 32
MAXIMUM_CPUS = 65536
MAXIMUM_PIDS = 1 << 22

RESOURCES_SCHEMA: Mapping[str, object] = {
    "type": "object",
    "properties": {
        "cpus": {"type": "number", "exclusiveMinimum": 0, "maximum": MAXIMUM_CPUS},
        "memory": {
            "anyOf": [
                {"type": "string", "pattern": MEMORY_PATTERN},
                {"type": "integer", "minimum": MINIMUM_MEMORY_BYTES},
            ]
        },
        "pids": {"type": "integer", "minimum": MINIMUM_PIDS, "maximum": MAXIMUM_PIDS},
    },
    "additionalProperties": False,
}

_NAMES = ("cpus", "memory", "pids")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_resources(path: str, value: object, problems: Problems) -> ResourcesWish:
    """Read `{"cpus": 2, "memory": "4G", "pids": 512}`."""
    if not isinstance(value, Mapping):
        problems.add(path, value, 'an object, as in {"memory": "4G", "cpus": 2, "pids": 512}')
        return UNLIMITED
    for name in value:
        if name not in _NAMES:
            problems.add_unknown(f"{path}.{name}", value[name], [f"{path}.{known}" for known in _NAMES])
    cpus, memory, pids = (value.get(name) for name in _NAMES)
    if "cpus" in value and not (_is_number(cpus, int, float) and 0 < cpus <= MAXIMUM_CPUS):
        problems.add(f"{path}.cpus", cpus, "a number of processors above 0, as in 2 or 0.5")
    memory_bytes = _read_size(memory)
    if "memory" in value and (memory_bytes is None or memory_bytes < MINIMUM_MEMORY_BYTES):
        least = format_size(MINIMUM_MEMORY_BYTES)
        problems.add(f"{path}.memory", memory, f'a size as in "4G" or "512M", or a number of bytes; at least {least}')
    if "pids" in value and not (_is_number(pids, int) and MINIMUM_PIDS <= pids <= MAXIMUM_PIDS):
        problems.add(f"{path}.pids", pids, f"a whole number of processes and threads, at least {MINIMUM_PIDS}")
    return ResourcesWish(cpus, memory_bytes, pids)


def write_resources(wish: ResourcesWish) -> dict[str, object]:
    """Write limits as `parse_resources` reads them."""
    memory = None if wish.memory_bytes is None else _write_size(wish.memory_bytes)
    limits = {"cpus": wish.cpus, "memory": memory, "pids": wish.pids}
    return {name: limit for name, limit in limits.items() if limit is not None}


def _is_number(value: object, *kinds: type) -> TypeGuard[Any]:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _read_size(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(MEMORY_PATTERN, value):
        unit = re.search("[KMGT]", value.upper())
        assert unit is not None
        return int(float(value[: unit.start()]) * _UNITS[unit[0]])
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _write_size(size_bytes: int) -> str | int:
    for unit in "TGM":
        if size_bytes % _UNITS[unit] == 0:
            return f"{size_bytes // _UNITS[unit]}{unit}"
    return size_bytes
