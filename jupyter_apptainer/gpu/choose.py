"""The freest device, for a script that wants one."""

from __future__ import annotations

from .model import Device
from .read import read_gpus


def pick(*, min_free_mib: float = 0) -> Device | None:
    """Return the device with the most free memory among those given to this process; None where none has `min_free_mib`.

    Among equals the one that computes least. Its `uuid` is a value for CUDA_VISIBLE_DEVICES. What others start meanwhile is not foreseen.
    """
    devices = [device for device in read_gpus().devices if (device.memory_free_bytes or 0) >= min_free_mib * 1024**2]
    usable = [device for device in devices if not device.problem]
    return min(usable, key=_rank, default=None)


def _rank(device: Device) -> tuple[int, int, int]:
    # A device that does not tell how busy it is comes behind those that do.
    busy = 101 if device.utilisation_percent is None else device.utilisation_percent
    return (-(device.memory_free_bytes or 0), busy, device.index)
