"""The checks of this machine: FUSE, programs, subordinate ids and GPUs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_apptainer.engine import host
from jupyter_apptainer.engine.host import gpu
from jupyter_apptainer.engine.locate import EngineInfo
from tests.engine.machines import UNSHARED, make_tree, probe_in_child

# --- FUSE and programs


def test_fuse_device_of_this_machine() -> None:
    assert host.probe_fuse_device(None).status != "fail"


def test_fuse_device_that_is_missing(tmp_path: Path, engine: EngineInfo) -> None:
    probe = host.probe_fuse_device(None, str(tmp_path / "fuse"))
    assert probe.status == "fail"
    assert "modprobe fuse" in str(probe.fix)
    assert host.probe_fuse_device(replace(engine, setuid=True), str(tmp_path / "fuse")).status == "warn"


def test_fuse_device_that_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "fuse").touch()
    probe = host.probe_fuse_device(None, str(tmp_path / "fuse"))
    assert probe.status == "fail"
    assert "mknod -m 666" in str(probe.fix)


def test_fuse_device_without_permission() -> None:
    # In a new user namespace even root owns nothing of the host's, so a file of root's with mode 0600 stays shut.
    script = "true"
    probe = probe_in_child("host.probe_fuse_device(None, '/proc/1/mem')", "unshare", "--user", script=script)
    assert probe.status == "fail"
    assert "chmod 666" in str(probe.fix)


@pytest.mark.root
def test_fuse_device_for_root_alone(tmp_path: Path) -> None:
    device = tmp_path / "fuse"
    os.mknod(device, 0o020600, os.makedev(10, 229))
    device.chmod(0o600)
    probe = host.probe_fuse_device(None, str(device))
    assert probe.status == "warn"
    assert probe.fix == f"sudo chmod 666 {device}"


@pytest.mark.parametrize(
    ("release", "status"),
    [
        ("3.10.0-1160.el7", "fail"),
        ("4.17.1", "fail"),
        ("4.18.0-553.el8", "ok"),
        ("5.10.1", "ok"),
        ("6.8.0-generic", "ok"),
    ],
)
def test_age_of_linux(release: str, status: str) -> None:
    assert host.probe_kernel_version(release).status == status


def test_programs_of_this_machine_tell_their_versions(engine: EngineInfo) -> None:
    probe = host.probe_helpers(engine, os.environ)
    assert probe.status == "ok", probe.detail
    assert "squashfuse_ll " in probe.detail
    assert "mksquashfs 4." in probe.detail


def test_missing_program_is_named_with_its_package(engine: EngineInfo) -> None:
    # What cannot be executed is not there. In a mount namespace of the child's own.
    script = "for f in /usr/bin/fuse2fs /usr/sbin/fuse2fs /bin/fuse2fs /sbin/fuse2fs; do test ! -e $f || mount --bind /dev/null $f; done"
    probe = probe_in_child("host.probe_helpers(None, os.environ)", *UNSHARED, script=script)
    assert probe.status == "warn"
    assert "fuse2fs (no ext3 overlays)" in probe.detail.partition("missing: ")[2]
    assert str(probe.fix).startswith("sudo ")
    assert "fuse2fs" in str(probe.fix)


# --- ids


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ("someone:100000:65536\n", "ok"),
        ("4711:100000:65536\n", "ok"),
        ("someone:100000:1000\n", "warn"),
        ("other:100000:65536\n", "warn"),
        ("broken\nsomeone:1:x\n", "warn"),
        ("", "warn"),
    ],
    ids=["by name", "by number", "small", "other user", "broken", "empty"],
)
def test_subordinate_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, status: str) -> None:
    from jupyter_apptainer.engine.host import identity

    root = make_tree(tmp_path, {"etc/subuid": content, "etc/subgid": content})
    assert (identity.count_subordinate_ids(root / "etc/subuid", "someone", 4711) >= identity.WANTED_IDS) == (
        status == "ok"
    )


def test_fakeroot_of_a_user_without_ids(tmp_path: Path) -> None:
    probe = host.probe_fakeroot(root=tmp_path, uid=4711)
    assert probe.status == "warn"
    assert "usermod --add-subuids" in str(probe.fix)


def test_fakeroot_of_this_user() -> None:
    assert host.probe_fakeroot().status in ("ok", "warn")


# --- NVIDIA


def test_machine_without_gpu_is_fine(tmp_path: Path) -> None:
    probe = host.probe_nvidia(None, {}, root=tmp_path)
    assert (probe.status, probe.fix) == ("ok", None)


def test_gpu_without_device_files(tmp_path: Path) -> None:
    version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n"
    probe = host.probe_nvidia(None, {}, root=make_tree(tmp_path, {"proc/driver/nvidia/version": version}))
    assert probe.status == "warn"
    assert "550.54.15" in probe.detail
    assert "nvidia-modprobe" in str(probe.fix)


def test_gpu_whose_libraries_are_missing(tmp_path: Path) -> None:
    if "libcuda.so.1" in gpu.find_libraries():
        pytest.skip("this machine has them")
    probe = host.probe_nvidia(None, {}, root=make_tree(tmp_path, {"dev/nvidia0": "", "dev/nvidiactl": ""}))
    assert probe.status == "warn"
    assert "libcuda.so.1" in probe.detail


def test_one_device_of_a_job_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "find_libraries", lambda: frozenset(gpu._LIBRARIES))
    root = make_tree(tmp_path, {"dev/nvidia0": "", "dev/nvidia1": "", "dev/nvidia-uvm": ""})
    found = gpu.find_nvidia(root=root)
    assert (found.devices, found.problem) == (("nvidia0", "nvidia1"), "")
    (root / "dev/nvidia-uvm").unlink()
    assert "/dev/nvidia-uvm" in gpu.find_nvidia(root=root).problem


def test_windows_subsystem_has_another_device(tmp_path: Path) -> None:
    assert gpu.find_nvidia(root=make_tree(tmp_path, {"dev/dxg": ""})).devices == ("dxg",)


def test_libraries_are_those_of_the_loader() -> None:
    assert "libc.so.6" in gpu.find_libraries()
