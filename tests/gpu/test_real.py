"""The GPUs of the machine that the tests run on, as every door shows them. Where there is none, each says why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from jupyter_apptainer.gpu import Device, Sampler, pick, read_gpus
from jupyter_apptainer.widgets.sections.gpu import build_gpu_section

# CUDA's driver itself, which every machine with a GPU of NVIDIA's has: takes some memory, and holds it until standard input ends.
HOLD = """
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
device, context, pointer = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
for name, *words in (
    ("cuInit", 0),
    ("cuDeviceGet", ctypes.byref(device), 0),
    ("cuCtxCreate_v2", ctypes.byref(context), 0, device),
    ("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(64 << 20)),
):
    status = getattr(cuda, name)(*words)
    if status:
        sys.exit(f"{name}: {status}")
print("holds", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device | None:
    """The first device that works, as the only one that is given; None where there is none."""
    found = [each for each in read_gpus().devices if each.vendor == "nvidia" and not each.problem]
    if found:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", found[0].uuid)
    return found[0] if found else None


@pytest.fixture
def holder(device: Device | None) -> Iterator[int]:
    """The pid of a process of ours that holds memory of the device; 0 where there is none."""
    if device is None:
        yield 0
        return
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"holds\n"
        yield process.pid
    finally:
        process.kill()
        process.communicate(timeout=60)


def test_who_holds_memory_is_seen_through_every_door(device: Device | None, holder: int) -> None:
    words = [sys.executable, "-m", "jupyter_apptainer.cli.main", "gpu", "--json"]
    told = json.loads(subprocess.run(words, capture_output=True, check=True, timeout=120).stdout)
    sampler = Sampler()
    section = build_gpu_section(sampler.look(), sampler)
    if device is None:
        assert told["status"]["code"] != "ok" or told["devices"]
        assert told["status"]["code"] == "ok" or told["status"]["reason"] in section.notes[0]
        assert pick() is None or told["devices"]
        return
    (row,) = [each for each in told["holders"] if each["pid"] == holder]
    assert row["owner"] in ("own", "notebook")
    assert row["memory_bytes"] is None or row["memory_bytes"] >= 64 << 20
    assert str(holder) in [each.cells[2] for each in section.rows]
    assert section.bars[0].label.startswith("GPU ")
    assert len(sampler.get_history(device)) == 1
    picked = pick()
    assert picked is not None
    assert picked.uuid == os.environ["CUDA_VISIBLE_DEVICES"]
