"""NVIDIA's management library, through `nvidia-ml-py` (whose module is called pynvml): the one place that loads it.

Whatever a device does not support, does not know or does not permit is None. Only a device that is gone says so.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ..engine.host.gpu import NO_NVIDIA, find_nvidia
from .model import Device, GpuProcess, GpuStatus, StatusCode

# nvmlReturn_t in NVIDIA's nvml.h.
_UNINITIALIZED, _NO_PERMISSION, _DRIVER_NOT_LOADED = 1, 4, 9
_LIBRARY_NOT_FOUND, _GPU_IS_LOST, _RESET_REQUIRED, _MISMATCH = 12, 15, 16, 18
_GONE = {
    _GPU_IS_LOST: "it does not answer any more (fallen off the bus, or powered down)",
    _RESET_REQUIRED: "it has to be reset",
}
# What one device answers, and is true of the driver.
_OF_ALL = (_UNINITIALIZED, _DRIVER_NOT_LOADED, _MISMATCH)
# nvmlTemperatureSensors_t and nvmlClockType_t.
_SENSOR_GPU, _CLOCK_SM, _CLOCK_MEMORY = 0, 1, 2

_NO_DEVICE = GpuStatus("no-device", NO_NVIDIA.problem, "on a cluster, ask for a GPU in your job")
_REASONS: Mapping[int, tuple[StatusCode, str, str]] = {
    _DRIVER_NOT_LOADED: (
        "no-driver",
        "NVIDIA's library is there, but its driver is not loaded",
        "sudo modprobe nvidia  # and after an update of the kernel: install the driver again",
    ),
    _MISMATCH: (
        "driver-mismatch",
        "NVIDIA's library and the loaded driver are of different versions: the driver was updated",
        "restart this machine, or unload the driver and load it again",
    ),
    _NO_PERMISSION: (
        "no-permission",
        "this user may not ask NVIDIA's driver",
        "ask for a GPU in your job, or for the group of /dev/nvidiactl",
    ),
}


@dataclass(frozen=True)
class _Facts:
    """What never changes about a device."""

    name: str
    power_limit_w: float | None


class NvmlReader:
    """Reads all devices. `library` is the module, initialised. For one thread at a time; `close` it."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._driver: str | None = self._ask("nvmlSystemGetDriverVersion")
        self._facts: dict[str, _Facts] = {}
        self._seen: dict[str, int] = {}

    def close(self) -> None:
        """Let the driver go."""
        with suppress(self._library.NVMLError):
            # The driver may have gone before.
            self._call("nvmlShutdown")

    def read(self) -> tuple[Device, ...] | GpuStatus:
        """Read now. Slices stand in place of the GPU that they are parts of; devices that may not be opened are left out.

        A status in place of devices: the driver has gone, and a new reader is needed.
        """
        try:
            count = self._call("nvmlDeviceGetCount")
            return tuple(device for index in range(count) for device in self._read_index(index))
        except self._library.NVMLError as error:
            return explain_nvml_error(error.value, str(error))

    def _read_index(self, index: int) -> Iterator[Device]:
        try:
            handle = self._call("nvmlDeviceGetHandleByIndex", index)
            card = self._read_card(index, handle)
            slices = [self._read_slice(card, number, part) for number, part in self._iter_slices(handle)]
        except self._library.NVMLError as error:
            if error.value in _OF_ALL:
                raise
            if error.value != _NO_PERMISSION:
                problem = _GONE.get(error.value) or f"it cannot be read: {error}"
                yield Device("nvidia", index, None, f"lost-{index}", "GPU", self._driver, problem=problem)
            return
        yield from slices or (card,)

    def _read_card(self, index: int, handle: Any) -> Device:
        uuid = self._call("nvmlDeviceGetUUID", handle)
        facts = self._facts.get(uuid) or self._read_facts(uuid, handle)
        rates = self._ask("nvmlDeviceGetUtilizationRates", handle)
        power = self._ask("nvmlDeviceGetPowerUsage", handle)
        return self._with_use(
            Device(
                "nvidia",
                index,
                None,
                uuid,
                facts.name,
                self._driver,
                utilisation_percent=rates.gpu if rates else None,
                temperature_c=self._ask("nvmlDeviceGetTemperature", handle, _SENSOR_GPU),
                power_w=None if power is None else power / 1000,
                power_limit_w=facts.power_limit_w,
                clock_mhz=self._ask("nvmlDeviceGetClockInfo", handle, _CLOCK_SM),
                memory_clock_mhz=self._ask("nvmlDeviceGetClockInfo", handle, _CLOCK_MEMORY),
            ),
            handle,
            self._read_shares(uuid, handle),
        )

    def _read_slice(self, card: Device, number: int, handle: Any) -> Device:
        uuid = self._call("nvmlDeviceGetUUID", handle)
        name = self._ask("nvmlDeviceGetName", handle) or card.name
        # NVIDIA reports no utilisation for slices, and none for the processes on them.
        part = replace(card, uuid=uuid, name=name, slice_index=number, utilisation_percent=None)
        return self._with_use(part, handle, {})

    def _iter_slices(self, handle: Any) -> Iterator[tuple[int, Any]]:
        mode = self._ask("nvmlDeviceGetMigMode", handle)
        if not mode or not mode[0]:
            return
        for number in range(self._ask("nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
            part = self._ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, number)
            if part is not None:
                yield number, part

    def _with_use(self, device: Device, handle: Any, shares: Mapping[int, int]) -> Device:
        memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
        return replace(
            device,
            memory_used_bytes=memory.used if memory else None,
            memory_total_bytes=memory.total if memory else None,
            processes=self._read_processes(handle, shares),
        )

    def _read_processes(self, handle: Any, shares: Mapping[int, int]) -> tuple[GpuProcess, ...] | None:
        lists = [
            self._ask(f"nvmlDeviceGet{kind}RunningProcesses", handle) for kind in ("Compute", "Graphics", "MPSCompute")
        ]
        if all(found is None for found in lists):
            return None
        # A process that computes and draws is in two lists, with the same memory.
        memory = {process.pid: process.usedGpuMemory for found in lists for process in found or ()}
        return tuple(GpuProcess(pid, memory[pid], shares.get(pid)) for pid in sorted(memory))

    def _read_shares(self, uuid: str, handle: Any) -> dict[int, int]:
        """Return each process's share of the device's time since the last look, where the driver tells."""
        samples = self._ask("nvmlDeviceGetProcessUtilization", handle, self._seen.get(uuid, 0)) or ()
        newest = {sample.pid: sample for sample in sorted(samples, key=lambda sample: sample.timeStamp)}
        if newest:
            self._seen[uuid] = max(sample.timeStamp for sample in newest.values())
        return {pid: sample.smUtil for pid, sample in newest.items()}

    def _read_facts(self, uuid: str, handle: Any) -> _Facts:
        limit = self._ask("nvmlDeviceGetEnforcedPowerLimit", handle)
        name = self._ask("nvmlDeviceGetName", handle) or "NVIDIA GPU"
        facts = _Facts(name, None if limit is None else limit / 1000)
        self._facts[uuid] = facts
        return facts

    def _call(self, name: str, *arguments: Any) -> Any:
        return getattr(self._library, name)(*arguments)

    def _ask(self, name: str, *arguments: Any) -> Any:
        """Call a function that devices, drivers or releases of the library may not have; None for no answer."""
        function: Callable[..., Any] | None = getattr(self._library, name, None)
        if function is None:
            return None
        try:
            return function(*arguments)
        except self._library.NVMLError as error:
            if error.value in _GONE or error.value in _OF_ALL:
                raise
            return None


def open_nvml() -> NvmlReader | GpuStatus:
    """Load the library and return a reader, or say why there is none. Takes seconds where the driver has to wake up."""
    try:
        library = importlib.import_module("pynvml")
    except ImportError as error:
        if find_nvidia() == NO_NVIDIA:
            return _NO_DEVICE
        return GpuStatus("no-package", f"NVIDIA's Python package cannot be loaded: {error}", "pip install nvidia-ml-py")
    try:
        library.nvmlInit()
        return NvmlReader(library)
    except library.NVMLError as error:
        return explain_nvml_error(error.value, str(error))


def explain_nvml_error(value: int, text: str) -> GpuStatus:
    """Say what an error of NVML's means for all devices."""
    if value == _LIBRARY_NOT_FOUND:
        return _explain_missing_library()
    code, reason, fix = _REASONS.get(value, ("failed", f"NVIDIA's library says: {text}", "jupyter apptainer doctor"))
    return GpuStatus(code, reason, fix)


def _explain_missing_library() -> GpuStatus:
    found = find_nvidia()
    if found == NO_NVIDIA:
        return _NO_DEVICE
    what = f"driver {found.driver}" if found.driver else f"device files ({', '.join(found.devices)})"
    return GpuStatus(
        "no-library",
        f"there is NVIDIA's {what}, but its library libnvidia-ml.so.1 is not found",
        "install the driver's libraries (Debian: libnvidia-ml1), then `sudo ldconfig`",
    )
