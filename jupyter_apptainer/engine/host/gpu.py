"""NVIDIA as the engine sees it: device nodes, driver, and the libraries that `--nv` takes along. A missing GPU is a status."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ..locate import EngineInfo
from .probe import ROOT, Probe, read_text

_LIBRARIES = ("libcuda.so.1", "libnvidia-ml.so.1")
_TIMEOUT_S = 5


def probe_nvidia(engine: EngineInfo | None, environ: Mapping[str, str], *, root: Path = ROOT) -> Probe:
    """Check what `--nv` needs. The engine itself says nothing where it finds no GPU or no driver."""
    name = "NVIDIA"
    devices = sorted(path.name for path in (root / "dev").glob("nvidia[0-9]*"))
    driver = _read_driver_version(root)
    if not devices and not driver:
        return Probe(name, "ok", "no GPU on this machine; kernels with `nv: auto` do without")
    if not devices:
        detail = f"the driver {driver} is loaded, but there are no device files /dev/nvidia*"
        return Probe(name, "warn", detail, "sudo nvidia-modprobe -u -c=0")
    libraries = find_libraries()
    missing = [library for library in _LIBRARIES if library not in libraries]
    if missing:
        detail = f"{_count(devices)}, but the loader does not know {' and '.join(missing)}: `nv` gives no CUDA"
        return Probe(name, "warn", detail, "sudo ldconfig  # or install the driver's libraries")
    if not (root / "dev/nvidia-uvm").exists():
        return Probe(name, "warn", f"{_count(devices)}, but CUDA needs /dev/nvidia-uvm", "sudo nvidia-modprobe -u -c=0")
    unreadable = _find_unreadable(root, devices)
    if unreadable:
        return Probe(
            name,
            "warn",
            f"{unreadable} cannot be opened by this user",
            "ask for the device in your job, or the group of its file",
        )
    detail = f"{_count(devices)}, driver {driver or 'unknown'}{_describe_visible(environ)}"
    if engine and engine.flavour == "apptainer" and engine.version < (1, 5, 0):
        detail += (
            "; the host's libraries come first, so an image with an older glibc than the host's may fail with `nv`"
        )
    return Probe(name, "ok", detail)


def find_libraries() -> frozenset[str]:
    """Return the names of the shared libraries that the loader knows, as the engine does: from `ldconfig -p`."""
    program = shutil.which("ldconfig", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not program:
        return frozenset()
    try:
        done = subprocess.run(
            [program, "-p"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return frozenset()
    return frozenset(line.split(" (", 1)[0].strip() for line in done.stdout.splitlines() if " => " in line)


def _read_driver_version(root: Path) -> str:
    match = re.search(r"Kernel Module(?: for \S+)?\s+([\d.]+)", read_text(root / "proc/driver/nvidia/version"))
    return match[1] if match else ""


def _find_unreadable(root: Path, devices: list[str]) -> str | None:
    return next((f"/dev/{name}" for name in devices if not os.access(root / "dev" / name, os.R_OK | os.W_OK)), None)


def _describe_visible(environ: Mapping[str, str]) -> str:
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    return "" if visible is None else f", CUDA_VISIBLE_DEVICES={visible or 'empty: none'}"


def _count(devices: list[str]) -> str:
    return f"{len(devices)} GPU{'s' if len(devices) != 1 else ''}"
