"""AMD's GPUs, read from Linux' own files below /sys. Experimental: written from the kernel's documentation of amdgpu and kfd.

No program and no library of AMD's is needed; `rocm-smi` reads the same files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from .model import Device, GpuProcess

_VENDOR = "0x1002"
_SYS = Path("/sys")


def read_amd(sys: Path = _SYS) -> tuple[Device, ...]:
    """Read all devices; empty where there is none. sys: where sysfs is mounted."""
    used = _read_processes(sys)
    driver = _read(sys / "module/amdgpu/version")
    cards = sorted(_iter_cards(sys), key=lambda card: int(card.name[4:]))
    return tuple(_read_card(sys, card, index, driver, used) for index, card in enumerate(cards))


def _iter_cards(sys: Path) -> Iterator[Path]:
    for card in sys.glob("class/drm/card*"):
        # Connectors of a card are called card0-DP-1.
        if card.name[4:].isdigit() and _read(card / "device/vendor") == _VENDOR:
            yield card


def _read_card(
    sys: Path, card: Path, index: int, driver: str | None, used: dict[str, dict[int, int | None]] | None
) -> Device:
    device = card / "device"
    sensors = next(iter(sorted(device.glob("hwmon/hwmon*"))), device / "hwmon")
    power = _read_number(sensors / "power1_average") or _read_number(sensors / "power1_input")
    heat = _read_number(sensors / "temp1_input")
    identity = _read(device / "unique_id")
    processes = None if used is None else used.get(_find_kfd_id(sys, device) or "", {})
    return Device(
        "amd",
        index,
        None,
        f"GPU-{identity}" if identity else f"amd-{os.path.basename(os.path.realpath(device))}",
        _read(device / "product_name") or "AMD GPU",
        driver,
        memory_used_bytes=_read_number(device / "mem_info_vram_used"),
        memory_total_bytes=_read_number(device / "mem_info_vram_total"),
        utilisation_percent=_read_number(device / "gpu_busy_percent"),
        # hwmon counts in thousandths of a degree, millionths of a watt, and hertz.
        temperature_c=None if heat is None else heat // 1000,
        power_w=_scale(power, 1e6),
        power_limit_w=_scale(_read_number(sensors / "power1_cap"), 1e6),
        clock_mhz=_to_mhz(_read_number(sensors / "freq1_input")),
        memory_clock_mhz=_to_mhz(_read_number(sensors / "freq2_input")),
        processes=None if processes is None else tuple(GpuProcess(pid, processes[pid]) for pid in sorted(processes)),
    )


def _read_processes(sys: Path) -> dict[str, dict[int, int | None]] | None:
    """Return what each process holds, by the compute driver's id of the device; None where that driver is not there."""
    folder = sys / "class/kfd/kfd/proc"
    if not folder.is_dir():
        return None
    found: dict[str, dict[int, int | None]] = {}
    for path in folder.glob("[0-9]*/vram_*"):
        found.setdefault(path.name.removeprefix("vram_"), {})[int(path.parent.name)] = _read_number(path)
    return found


def _find_kfd_id(sys: Path, device: Path) -> str | None:
    """The compute driver knows a device by the number of its render node."""
    minors = {path.name.removeprefix("renderD") for path in device.glob("drm/renderD*")}
    for node in sys.glob("class/kfd/kfd/topology/nodes/*"):
        properties = dict(
            line.split(maxsplit=1) for line in (_read(node / "properties") or "").splitlines() if " " in line
        )
        if properties.get("drm_render_minor") in minors:
            return _read(node / "gpu_id")
    return None


def _read(path: Path) -> str | None:
    with suppress(OSError):
        return path.read_text(errors="replace").strip()
    return None


def _read_number(path: Path) -> int | None:
    text = _read(path) or ""
    return int(text) if text.isdigit() else None


def _scale(number: int | None, unit: float) -> float | None:
    return None if number is None else number / unit


def _to_mhz(hertz: int | None) -> int | None:
    return None if hertz is None else hertz // 1_000_000
