"""Which of the machine's devices this user, server or job was given. NVML itself shows all that may be opened.

What CUDA_VISIBLE_DEVICES means is in NVIDIA's CUDA programming guide; Slurm's variables count the devices of the whole machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .model import Device, Vendor

_VISIBLE: Mapping[Vendor, tuple[str, ...]] = {
    "nvidia": ("CUDA_VISIBLE_DEVICES",),
    "amd": ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
}
_SLURM = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")


def choose_given(devices: Sequence[Device], environ: Mapping[str, str]) -> tuple[Device, ...]:
    """Return the devices that `environ` leaves, in the order of the machine."""
    return tuple(
        device
        for vendor in _VISIBLE
        for device in _choose([device for device in devices if device.vendor == vendor], vendor, environ)
    )


def describe_restriction(environ: Mapping[str, str]) -> str:
    """Say what restricts, as NAME=VALUE; empty for nothing."""
    names = [name for names in (*_VISIBLE.values(), _SLURM) for name in names if name in environ]
    return ", ".join(f"{name}={environ[name]}" for name in names)


def _choose(devices: list[Device], vendor: Vendor, environ: Mapping[str, str]) -> list[Device]:
    for name in _VISIBLE[vendor]:
        if name in environ:
            return _choose_named(devices, environ[name])
    slurm = next((environ[name] for name in _SLURM if environ.get(name)), None)
    numbers = _parse_numbers(slurm) if slurm else None
    if numbers is None or len({device.index for device in devices}) <= len(numbers):
        # Where Slurm also closes the others' device files, only its own are left, and counted from 0 again.
        return devices
    return [device for device in devices if device.index in numbers]


def _choose_named(devices: list[Device], value: str) -> list[Device]:
    """As CUDA does: numbers, or beginnings of uuids; what comes behind a word that names nothing is ignored."""
    cards = list(dict.fromkeys(device.index for device in devices))
    chosen: set[str] = set()
    for word in (word.strip() for word in value.split(",")):
        if word.isdigit():
            found = [device for device in devices if int(word) < len(cards) and device.index == cards[int(word)]]
        else:
            found = [device for device in devices if word and device.uuid.startswith(word)]
        if not found:
            break
        chosen |= {device.uuid for device in found}
    return [device for device in devices if device.uuid in chosen]


def _parse_numbers(value: str) -> set[int] | None:
    """Slurm writes 0,2 or 0-3; None for what is neither."""
    numbers: set[int] = set()
    for part in value.split(","):
        first, _, last = part.partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            return None
        numbers |= set(range(int(first), int(last or first) + 1))
    return numbers
