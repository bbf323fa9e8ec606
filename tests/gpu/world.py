"""GPUs that this machine does not have: what the stand-in for NVIDIA's package shows, also to programs that a test starts."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

STANDIN = Path(__file__).parent / "standin"
GIB = 1024**3


@dataclass
class World:
    """A machine with GPUs. path: the file that the stand-in reads."""

    path: Path

    def show(self, *devices: dict[str, Any], error: int = 0) -> None:
        """Show these devices from now on; error: what every call answers instead (nvmlReturn_t)."""
        # As a whole or not at all, and never with the time of the one before: a thread may be reading.
        before = self.path.stat().st_mtime_ns if self.path.exists() else 0
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"devices": devices, "error": error}))
        moment = max(before + 1, new.stat().st_mtime_ns)
        os.utime(new, ns=(moment, moment))
        os.replace(new, self.path)


def make_card(index: int, **changes: Any) -> dict[str, Any]:
    """Return a healthy device with nothing running; `changes` by the names of the stand-in."""
    card = {
        "uuid": f"GPU-{index:08x}-1111-2222-3333-444444444444",
        "name": "NVIDIA A100-SXM4-40GB",
        "utilisation": 0,
        "memory": [0, 40 * GIB],
        "temperature": 30,
        "power_mw": 52_500,
        "power_limit_mw": 400_000,
        "clocks": [0, 1410, 1215],
        "processes": [],
        "drawing": [],
    }
    return card | changes


def make_slice(card: int, number: int, **changes: Any) -> dict[str, Any]:
    """Return a slice (MIG) as NVIDIA shows one: memory and processes, and nothing else."""
    part = {
        "uuid": f"MIG-{card:04x}{number:04x}-1111-2222-3333-444444444444",
        "name": "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "memory": [0, 5 * GIB],
        "processes": [],
    }
    return part | changes


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A machine whose GPUs the test describes. No variable restricts them."""
    found = World(tmp_path_factory.mktemp("gpus") / "gpus.json")
    found.show()
    monkeypatch.setenv("JPA_TEST_GPUS", str(found.path))
    monkeypatch.setenv("PYTHONPATH", str(STANDIN))
    monkeypatch.syspath_prepend(str(STANDIN))
    real = sys.modules.pop("pynvml", None)
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "APPTAINER_CONTAINER"):
        monkeypatch.delenv(name, raising=False)
    yield found
    # A thread that reads is not waited for when its last viewer goes, and it needs the stand-in until it ends.
    for thread in threading.enumerate():
        if thread.name == "jpa-gpu":
            thread.join(10)
    sys.modules.pop("pynvml", None)
    if real:
        sys.modules["pynvml"] = real
