"""AMD's devices, from files as Linux documents them: none of the tests has seen a real one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jupyter_apptainer.gpu import GpuReader
from jupyter_apptainer.gpu.amd import read_amd


@pytest.fixture
def sys_tree(tmp_path: Path) -> Path:
    """A machine with a card of AMD's, and one of another maker's."""
    device = tmp_path / "class/drm/card1/device"
    files = {
        "class/drm/card0/device/vendor": "0x8086",
        "class/drm/card1/device/vendor": "0x1002",
        "class/drm/card1/device/unique_id": "f00dbeef",
        "class/drm/card1/device/product_name": "AMD Instinct MI210",
        "class/drm/card1/device/gpu_busy_percent": "37",
        "class/drm/card1/device/mem_info_vram_used": str(5 * 1024**3),
        "class/drm/card1/device/mem_info_vram_total": str(64 * 1024**3),
        "class/drm/card1/device/hwmon/hwmon4/temp1_input": "48000",
        "class/drm/card1/device/hwmon/hwmon4/power1_average": "91000000",
        "class/drm/card1/device/hwmon/hwmon4/freq1_input": "1700000000",
        "class/drm/card1/device/drm/renderD129/dev": "226:129",
        "class/drm/card1-DP-1/status": "connected",
        "module/amdgpu/version": "6.8.5",
        "class/kfd/kfd/topology/nodes/0/gpu_id": "0",
        "class/kfd/kfd/topology/nodes/0/properties": "cpu_cores_count 8\ndrm_render_minor 0",
        "class/kfd/kfd/topology/nodes/1/gpu_id": "4711",
        "class/kfd/kfd/topology/nodes/1/properties": "simd_count 208\ndrm_render_minor 129",
        f"class/kfd/kfd/proc/{os.getpid()}/vram_4711": str(1024**3),
        f"class/kfd/kfd/proc/{os.getpid()}/vram_9": "1",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    assert device.is_dir()
    return tmp_path


def test_a_card_is_read_from_linux_files(sys_tree: Path) -> None:
    (device,) = read_amd(sys_tree)
    assert (device.vendor, device.index, device.uuid, device.name) == ("amd", 0, "GPU-f00dbeef", "AMD Instinct MI210")
    assert (device.utilisation_percent, device.temperature_c, device.power_w, device.clock_mhz) == (37, 48, 91, 1700)
    assert device.memory_free_bytes == 59 * 1024**3
    assert (device.power_limit_w, device.memory_clock_mhz) == (None, None)


def test_its_processes_are_attributed_like_all_others(sys_tree: Path) -> None:
    with GpuReader(environ={"HOME": str(sys_tree)}, sys=sys_tree) as reader:
        report = reader.read()
    assert report.status.code == "ok"
    assert [(holder.pid, holder.memory_bytes) for holder in report.holders if holder.device == "GPU-f00dbeef"] == [
        (os.getpid(), 1024**3)
    ]


def test_files_that_are_not_there_are_not_zero(tmp_path: Path) -> None:
    (tmp_path / "class/drm/card0/device").mkdir(parents=True)
    (tmp_path / "class/drm/card0/device/vendor").write_text("0x1002\n")
    (device,) = read_amd(tmp_path)
    assert (device.utilisation_percent, device.memory_used_bytes, device.temperature_c) == (None, None, None)
    assert (device.power_w, device.processes) == (None, None)
    assert read_amd(tmp_path / "nowhere") == ()
