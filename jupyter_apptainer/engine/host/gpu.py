"""NVIDIA as the engine sees it: device nodes, driver, and the libraries that `--nv` takes along. A missing GPU is a status."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..locate import EngineInfo
from .probe import ROOT, Probe, read_text

_LIBRARIES = ("libcuda.so.1", "libnvidia-ml.so.1")
_TIMEOUT_S = 5


@dataclass(frozen=True)
class Nvidia:
    """What a GPU of NVIDIA's needs, as far as the host has it.

    devices: names of device files in /dev. driver: version of the loaded kernel module, empty for none (and in WSL).
    libraries: those of the driver that the loader knows. problem: why no GPU can be used, empty where one can; fix: a command.
    """

    devices: tuple[str, ...]
    driver: str
    libraries: tuple[str, ...]
    problem: str = ""
    fix: str | None = None

    def describe(self) -> str:
        """Say what was found, in a line."""
        return "; ".join(
            (
                f"device files: {', '.join(self.devices) or 'none'}",
                f"driver: {self.driver or 'none'}",
                f"its libraries: {', '.join(self.libraries) or 'none'}",
            )
        )


NO_NVIDIA = Nvidia((), "", (), "this machine has no NVIDIA GPU (no /dev/nvidia0, no driver loaded)")


def find_nvidia(*, root: Path = ROOT) -> Nvidia:
    """Look for device files, driver and libraries, and judge them."""
    devices = tuple(sorted(path.name for path in (root / "dev").glob("nvidia[0-9]*")))
    is_wsl = (root / "dev/dxg").exists()
    driver = _read_driver_version(root)
    if not devices and not driver and not is_wsl:
        return NO_NVIDIA
    known = find_libraries()
    libraries = tuple(library for library in _LIBRARIES if library in known)
    missing = " and ".join(library for library in _LIBRARIES if library not in known)
    problem, fix = "", None
    if not devices and not is_wsl:
        problem = f"the NVIDIA driver {driver} is loaded, but there are no device files /dev/nvidia*"
        fix = "sudo nvidia-modprobe -u -c=0"
    elif missing:
        problem, fix = f"the loader does not know {missing}", "sudo ldconfig  # or install the driver's libraries"
    elif devices and not (root / "dev/nvidia-uvm").exists():
        problem, fix = "CUDA needs /dev/nvidia-uvm, which is missing", "sudo nvidia-modprobe -u -c=0"
    elif devices and not _has_access(root, devices):
        problem = f"/dev/{devices[0]} cannot be opened by this user"
        fix = "ask for the device in your job, or the group of its file"
    return Nvidia(("dxg",) if is_wsl and not devices else devices, driver, libraries, problem, fix)


def probe_nvidia(engine: EngineInfo | None, environ: Mapping[str, str], *, root: Path = ROOT) -> Probe:
    """Check what `--nv` needs. The engine itself says nothing where it finds no GPU or no driver."""
    name = "NVIDIA"
    found = find_nvidia(root=root)
    if not found.devices and not found.driver:
        return Probe(name, "ok", "no GPU on this machine; kernels with `nv: auto` do without")
    if found.problem:
        return Probe(name, "warn", f"{_count(found.devices)}, but {found.problem}: `nv` gives no CUDA", found.fix)
    detail = f"{_count(found.devices)}, driver {found.driver or 'unknown'}{_describe_visible(environ)}"
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


def _has_access(root: Path, devices: Sequence[str]) -> bool:
    """One is enough: a batch job is given some of them."""
    return any(os.access(root / "dev" / name, os.R_OK | os.W_OK) for name in devices)


def _describe_visible(environ: Mapping[str, str]) -> str:
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    return "" if visible is None else f", CUDA_VISIBLE_DEVICES={visible or 'empty: none'}"


def _count(devices: Sequence[str]) -> str:
    return f"{len(devices)} GPU{'s' if len(devices) != 1 else ''}"
