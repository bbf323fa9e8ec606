"""What is said of GPUs: readings, who holds them, and why there are none. None stands for what a device does not report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Vendor = Literal["nvidia", "amd"]
StatusCode = Literal[
    "ok",
    "in-container",
    "no-package",
    "no-library",
    "no-driver",
    "driver-mismatch",
    "no-permission",
    "no-device",
    "none-given",
    "failed",
]
Owner = Literal["notebook", "instance", "own", "orphan", "other"]


@dataclass(frozen=True)
class GpuProcess:
    """A process that uses a device, by its pid on the host. utilisation_percent: of the device's processors, lately."""

    pid: int
    memory_bytes: int | None
    utilisation_percent: int | None = None


@dataclass(frozen=True)
class Device:
    """A GPU, or a slice of one (MIG), as it is now.

    index: as the driver counts; slice_index: the slice's within its GPU, None for a whole one. Temperature, power and clocks of a
    slice are those of its GPU. processes: None where nobody tells. problem: why it gives no readings, empty where it does.
    """

    vendor: Vendor
    index: int
    slice_index: int | None
    uuid: str
    name: str
    driver: str | None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    utilisation_percent: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    processes: tuple[GpuProcess, ...] | None = None
    problem: str = ""

    @property
    def label(self) -> str:
        """Short and unique on this machine: "0", or "0:1" for a slice."""
        return str(self.index) if self.slice_index is None else f"{self.index}:{self.slice_index}"

    @property
    def memory_free_bytes(self) -> int | None:
        """What is left."""
        if self.memory_total_bytes is None or self.memory_used_bytes is None:
            return None
        return self.memory_total_bytes - self.memory_used_bytes


@dataclass(frozen=True)
class GpuStatus:
    """Whether GPUs can be read; if not, why, and what to do about it."""

    code: StatusCode
    reason: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Holder:
    """Who uses a device.

    owner: "notebook" with a kernel that somebody has; "instance": a container of yours without one; "own": another program of
    yours; "orphan": yours, and nobody's any more, `reason` says why; "other": another user's. label: notebook, instance or program.
    """

    device: str
    pid: int
    owner: Owner
    label: str
    user: str
    memory_bytes: int | None
    utilisation_percent: int | None
    instance: str = ""
    kernel_id: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Others:
    """Processes of other users on a device: counted, not named. memory_bytes: None where none of them is known."""

    device: str
    processes: int
    memory_bytes: int | None


@dataclass(frozen=True)
class GpuReport:
    """One look at all devices that this user was given. hidden: how many there are besides. taken_at: seconds since the epoch."""

    status: GpuStatus
    devices: tuple[Device, ...]
    holders: tuple[Holder, ...]
    others: tuple[Others, ...]
    hidden: int
    taken_at: float
