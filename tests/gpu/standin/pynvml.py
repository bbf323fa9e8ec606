"""Stands in for NVIDIA's Python package: shows the GPUs that the file named in JPA_TEST_GPUS describes, as it is at each call.

null stands for what a device does not support. `tests.gpu.conftest.World` writes the file.
"""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    """As in the real package: the status of the library is `value`."""

    def __init__(self, value: int) -> None:
        super().__init__(f"status {value}")
        self.value = value


_parsed: tuple[int, Any] = (0, None)


def _world() -> Any:
    """Read the file when it is new: what a look costs must be the product's cost."""
    global _parsed
    changed = os.stat(os.environ["JPA_TEST_GPUS"]).st_mtime_ns
    if _parsed[0] != changed:
        with open(os.environ["JPA_TEST_GPUS"]) as stream:
            _parsed = (changed, json.load(stream))
    world = _parsed[1]
    if world.get("error"):
        raise NVMLError(world["error"])
    return world


def _device(handle: tuple[int, ...]) -> Any:
    device = _world()["devices"][handle[0]]
    return device if len(handle) == 1 else device["slices"][handle[1]]


def _get(handle: tuple[int, ...], name: str) -> Any:
    device = _device(handle)
    if device.get("error"):
        raise NVMLError(device["error"])
    if device.get(name) is None:
        raise NVMLError(3)
    return device[name]


def nvmlInit() -> None:
    _world()


def nvmlShutdown() -> None:
    _world()


def nvmlSystemGetDriverVersion() -> str:
    return str(_world().get("driver", "555.42"))


def nvmlDeviceGetCount() -> int:
    return len(_world()["devices"])


def nvmlDeviceGetHandleByIndex(index: int) -> tuple[int, ...]:
    _get((index,), "uuid")
    return (index,)


def nvmlDeviceGetUUID(handle: tuple[int, ...]) -> Any:
    return _get(handle, "uuid")


def nvmlDeviceGetName(handle: tuple[int, ...]) -> Any:
    return _get(handle, "name")


def nvmlDeviceGetUtilizationRates(handle: tuple[int, ...]) -> Any:
    return SimpleNamespace(gpu=_get(handle, "utilisation"))


def nvmlDeviceGetMemoryInfo(handle: tuple[int, ...]) -> Any:
    used, total = _get(handle, "memory")
    return SimpleNamespace(used=used, total=total)


def nvmlDeviceGetTemperature(handle: tuple[int, ...], sensor: int) -> Any:
    return _get(handle, "temperature")


def nvmlDeviceGetPowerUsage(handle: tuple[int, ...]) -> Any:
    return _get(handle, "power_mw")


def nvmlDeviceGetEnforcedPowerLimit(handle: tuple[int, ...]) -> Any:
    return _get(handle, "power_limit_mw")


def nvmlDeviceGetClockInfo(handle: tuple[int, ...], kind: int) -> Any:
    return _get(handle, "clocks")[kind]


def nvmlDeviceGetComputeRunningProcesses(handle: tuple[int, ...]) -> Any:
    return [SimpleNamespace(pid=pid, usedGpuMemory=memory) for pid, memory in _get(handle, "processes")]


def nvmlDeviceGetGraphicsRunningProcesses(handle: tuple[int, ...]) -> Any:
    return [SimpleNamespace(pid=pid, usedGpuMemory=memory) for pid, memory in _get(handle, "drawing")]


def nvmlDeviceGetProcessUtilization(handle: tuple[int, ...], since: int) -> Any:
    return [SimpleNamespace(pid=pid, timeStamp=stamp, smUtil=share) for pid, stamp, share in _get(handle, "shares")]


def nvmlDeviceGetMigMode(handle: tuple[int, ...]) -> Any:
    enabled = int("slices" in _device(handle))
    return [enabled, enabled]


def nvmlDeviceGetMaxMigDeviceCount(handle: tuple[int, ...]) -> int:
    # A GPU has places for seven slices; those without one answer "not found".
    return 7


def nvmlDeviceGetMigDeviceHandleByIndex(handle: tuple[int, ...], number: int) -> tuple[int, ...]:
    if number >= len(_device(handle)["slices"]):
        raise NVMLError(6)
    return (*handle, number)
