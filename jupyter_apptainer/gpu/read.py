"""One look at all GPUs: devices, who holds them, and what is left out."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..places import Places, find_places
from .amd import read_amd
from .given import choose_given, describe_restriction
from .model import Device, GpuReport, GpuStatus, Holder, Others
from .nvml import NvmlReader, open_nvml
from .owners import OwnerFinder, Ownership

_OK = GpuStatus("ok")
_SYS = Path("/sys")
# What NVIDIA's library says where there is nothing of NVIDIA's.
_NOTHING = ("no-device", "no-package")
_CONTAINER_VARIABLES = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER")


class GpuReader:
    """Reads look after look. A context manager: NVIDIA's driver stays awake while it is open. For one thread at a time.

    show_others: name other users' processes, instead of counting them. sys: where sysfs is mounted.
    """

    def __init__(
        self,
        places: Places | None = None,
        environ: Mapping[str, str] | None = None,
        *,
        show_others: bool = False,
        sys: Path = _SYS,
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._owners = OwnerFinder(places or find_places(self._environ))
        self._show_others = show_others
        self._sys = sys
        self._nvml: NvmlReader | None = None

    def __enter__(self) -> GpuReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let NVIDIA's driver go."""
        if self._nvml:
            self._nvml.close()
            self._nvml = None

    def read(self, *, is_all: bool = False) -> GpuReport:
        """Look now. is_all: also at devices that this user was not given."""
        status, nvidia = self._read_nvidia()
        found = (*nvidia, *read_amd(self._sys))
        given = found if is_all else choose_given(found, self._environ)
        if found and status.code in ("ok", *_NOTHING):
            status = _OK if given else self._explain_none_given()
        if given and self._is_in_container():
            status = _explain_container()
            given = tuple(replace(device, processes=None) for device in given)
        holders, others = self._describe_processes(given)
        return GpuReport(status, given, holders, others, len(found) - len(given), time.time())

    def _read_nvidia(self) -> tuple[GpuStatus, tuple[Device, ...]]:
        if self._nvml is None:
            opened = open_nvml()
            if isinstance(opened, GpuStatus):
                return opened, ()
            self._nvml = opened
        devices = self._nvml.read()
        if isinstance(devices, GpuStatus):
            # The driver was unloaded under our feet; the next look finds out what has become of it.
            self._nvml = None
            return devices, ()
        if not devices:
            return GpuStatus("no-device", "NVIDIA's driver shows no GPU here", "ask for a GPU in your job"), ()
        return _OK, devices

    def _explain_none_given(self) -> GpuStatus:
        given = describe_restriction(self._environ)
        return GpuStatus(
            "none-given",
            f"this machine has GPUs, but none was given to you ({given})",
            "ask for one in your job, or change that variable; `--all` shows those of the machine",
        )

    def _is_in_container(self) -> bool:
        return any(self._environ.get(name) for name in _CONTAINER_VARIABLES)

    def _describe_processes(self, devices: Sequence[Device]) -> tuple[tuple[Holder, ...], tuple[Others, ...]]:
        owners = self._owners.find({process.pid for device in devices for process in device.processes or ()})
        holders = [holder for device in devices for holder in _iter_holders(device, owners)]
        if self._show_others:
            return tuple(holders), ()
        named = tuple(holder for holder in holders if holder.owner != "other")
        return named, tuple(_count_others(holder for holder in holders if holder.owner == "other"))


def read_gpus(
    places: Places | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    is_all: bool = False,
    show_others: bool = False,
) -> GpuReport:
    """Look once. Who looks again and again keeps a `GpuReader`, or watches a `Sampler`."""
    with GpuReader(places, environ, show_others=show_others) as reader:
        return reader.read(is_all=is_all)


def _explain_container() -> GpuStatus:
    return GpuStatus(
        "in-container",
        "this is a container: the driver tells process ids of the host, so who holds a GPU is not known here",
        "`jupyter apptainer gpu` on the host names the notebooks",
    )


def _iter_holders(device: Device, owners: Mapping[int, Ownership]) -> Iterable[Holder]:
    for process in device.processes or ():
        found = owners[process.pid]
        yield Holder(
            device.uuid,
            process.pid,
            found.owner,
            found.label,
            found.user,
            process.memory_bytes,
            process.utilisation_percent,
            found.instance,
            found.kernel_id,
            found.reason,
        )


def _count_others(holders: Iterable[Holder]) -> Iterable[Others]:
    by_device: dict[str, list[Holder]] = {}
    for holder in holders:
        by_device.setdefault(holder.device, []).append(holder)
    for device, group in by_device.items():
        known = [holder.memory_bytes for holder in group if holder.memory_bytes is not None]
        yield Others(device, len(group), sum(known) if known else None)
