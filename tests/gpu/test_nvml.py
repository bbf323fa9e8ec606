"""NVIDIA's devices: what is read, what is not there, and why there is nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_apptainer.engine.host.gpu import NO_NVIDIA, Nvidia, find_nvidia
from jupyter_apptainer.gpu import GpuReader, pick, read_gpus
from jupyter_apptainer.gpu import nvml as nvml_module
from jupyter_apptainer.places import Places
from tests.gpu.world import GIB, World, make_card, make_slice

# nvmlReturn_t
NO_PERMISSION, DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND, LOST, MISMATCH = 4, 9, 12, 15, 18


@pytest.fixture
def stranger() -> Iterator[int]:
    """The pid of a process of another user's."""
    if os.geteuid() != 0:
        yield 1
        return
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, user=65534) as process:
        yield process.pid
        assert process.stdin is not None
        process.stdin.close()


def test_the_machine_as_it_is() -> None:
    """The real library: without a GPU a reason and a way out, with one readings that make sense."""
    report = read_gpus(is_all=True)
    nvidia = [device for device in report.devices if device.vendor == "nvidia"]
    if find_nvidia() == NO_NVIDIA:
        assert not nvidia
        assert report.devices or (report.status.code, report.status.fix) == (
            "no-device",
            "on a cluster, ask for a GPU in your job",
        )
        return
    assert nvidia or report.status.code != "ok"
    for device in nvidia:
        assert device.name
        assert device.uuid.startswith(("GPU-", "MIG-"))
        assert device.driver
        assert device.memory_total_bytes is None or 0 <= (device.memory_used_bytes or 0) <= device.memory_total_bytes
        assert device.utilisation_percent is None or 0 <= device.utilisation_percent <= 100


def test_the_real_package_without_its_library_is_told_from_a_missing_package() -> None:
    """In a process of its own: the package looks for the library once."""
    code = (
        "import ctypes, sys, pynvml\n"
        "def missing(name, *rest): raise OSError(name)\n"
        "pynvml.CDLL = missing\n"
        "from jupyter_apptainer.gpu import nvml\n"
        "from jupyter_apptainer.engine.host.gpu import Nvidia\n"
        "nvml.find_nvidia = lambda: Nvidia(('nvidia0',), '555.42', ())\n"
        "print(nvml.open_nvml().code)\n"
        "sys.modules['pynvml'] = None\n"
        "print(nvml.open_nvml().code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["no-library", "no-package"]


def test_eight_devices_are_read(world: World) -> None:
    busy = make_card(3, utilisation=97, memory=[30 * GIB, 40 * GIB], temperature=61, power_mw=210_000)
    world.show(*(busy if index == 3 else make_card(index) for index in range(8)))
    report = read_gpus()
    assert report.status.code == "ok"
    assert [device.label for device in report.devices] == list("01234567")
    device = report.devices[3]
    assert (device.utilisation_percent, device.temperature_c, device.power_w, device.power_limit_w) == (
        97,
        61,
        210,
        400,
    )
    assert (device.memory_used_bytes, device.memory_free_bytes) == (30 * GIB, 10 * GIB)
    assert (device.clock_mhz, device.memory_clock_mhz, device.driver) == (1410, 1215, "555.42")
    assert report.devices[0].utilisation_percent == 0


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("utilisation", "utilisation_percent"),
        ("memory", "memory_used_bytes"),
        ("memory", "memory_total_bytes"),
        ("temperature", "temperature_c"),
        ("power_mw", "power_w"),
        ("power_limit_mw", "power_limit_w"),
        ("clocks", "clock_mhz"),
    ],
    ids=lambda word: word,
)
def test_what_a_device_does_not_support_is_not_zero(world: World, name: str, field: str) -> None:
    world.show(make_card(0, **{name: None}))
    (device,) = read_gpus().devices
    assert getattr(device, field) is None
    assert not device.problem


def test_processes_that_nobody_tells_are_not_none_at_all(world: World) -> None:
    world.show(make_card(0, processes=None, drawing=None), make_card(1, drawing=None))
    first, second = read_gpus().devices
    assert (first.processes, second.processes) == (None, ())


def test_slices_stand_in_place_of_their_card(world: World) -> None:
    pid = os.getpid()
    parts = [make_slice(0, 0, memory=[GIB, 5 * GIB], processes=[[pid, None]]), make_slice(0, 1)]
    world.show(make_card(0, slices=parts, memory=None, utilisation=None), make_card(1))
    report = read_gpus()
    assert [device.label for device in report.devices] == ["0:0", "0:1", "1"]
    part = report.devices[0]
    assert part.uuid.startswith("MIG-")
    assert (part.memory_used_bytes, part.memory_total_bytes) == (GIB, 5 * GIB)
    # The card's own readings count for its slices; nobody tells how busy a slice is.
    assert (part.temperature_c, part.utilisation_percent) == (30, None)
    (holder,) = report.holders
    assert (holder.device, holder.pid, holder.memory_bytes, holder.utilisation_percent) == (part.uuid, pid, None, None)


@pytest.mark.parametrize(
    ("error", "word"),
    [(LOST, "does not answer"), (16, "reset"), (999, "cannot be read")],
    ids=["lost", "to be reset", "unknown"],
)
def test_a_device_that_vanishes_says_so_and_comes_back(world: World, error: int, word: str) -> None:
    world.show(make_card(0), make_card(1))
    with GpuReader() as reader:
        assert not any(device.problem for device in reader.read().devices)
        world.show(make_card(0), make_card(1, error=error))
        first, second = reader.read().devices
        assert not first.problem
        assert word in second.problem
        assert (second.memory_used_bytes, second.utilisation_percent) == (None, None)
        world.show(make_card(0), make_card(1))
        assert not any(device.problem for device in reader.read().devices)


def test_a_driver_that_goes_while_somebody_looks_is_found_again(world: World) -> None:
    world.show(make_card(0))
    with GpuReader() as reader:
        assert reader.read().status.code == "ok"
        world.show(error=DRIVER_NOT_LOADED)
        assert [reader.read().status.code for _ in range(2)] == ["no-driver", "no-driver"]
        world.show(make_card(0))
        assert reader.read().status.code == "ok"


def test_a_device_that_may_not_be_opened_is_left_out(world: World) -> None:
    world.show(make_card(0, error=NO_PERMISSION), make_card(1))
    assert [device.index for device in read_gpus().devices] == [1]


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (DRIVER_NOT_LOADED, "no-driver", "modprobe"),
        (MISMATCH, "driver-mismatch", "restart"),
        (NO_PERMISSION, "no-permission", "job"),
        (999, "failed", "doctor"),
    ],
    ids=lambda word: str(word),
)
def test_no_readings_have_a_reason_and_a_way_out(world: World, error: int, code: str, word: str) -> None:
    world.show(error=error)
    status = read_gpus().status
    assert status.code == code
    assert status.reason
    assert word in status.fix
    assert pick() is None


def test_a_missing_library_where_there_is_a_driver_names_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml_module, "find_nvidia", lambda: Nvidia(("nvidia0",), "555.42", ()))
    world.show(error=LIBRARY_NOT_FOUND)
    status = read_gpus().status
    assert status.code == "no-library"
    assert "555.42" in status.reason


def test_in_a_container_devices_are_read_and_nobody_is_blamed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPTAINER_CONTAINER", "/images/torch.sif")
    world.show(make_card(0, processes=[[os.getpid(), GIB]]))
    report = read_gpus()
    assert report.status.code == "in-container"
    assert [device.processes for device in report.devices] == [None]
    assert not report.holders


def test_strangers_are_counted_and_not_named(world: World, stranger: int) -> None:
    gone = 4_190_000
    world.show(make_card(0, processes=[[os.getpid(), GIB], [stranger, 3 * GIB], [gone, None]]))
    report = read_gpus()
    assert [holder.pid for holder in report.holders] == [os.getpid()]
    (others,) = report.others
    assert (others.processes, others.memory_bytes) == (2, 3 * GIB)
    named = read_gpus(show_others=True)
    assert {holder.pid: holder.owner for holder in named.holders}[stranger] == "other"
    assert not named.others


def test_a_process_that_computes_and_draws_counts_once(world: World) -> None:
    pid = os.getpid()
    world.show(make_card(0, processes=[[pid, GIB]], drawing=[[pid, GIB]], shares=[[pid, 5, 12], [pid, 7, 40]]))
    (holder,) = read_gpus().holders
    assert (holder.memory_bytes, holder.utilisation_percent, holder.owner) == (GIB, 40, "own")


def test_pick_takes_the_freest_and_then_the_idlest(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [
        make_card(0, memory=[39 * GIB, 40 * GIB]),
        make_card(1, memory=[GIB, 40 * GIB], utilisation=90),
        make_card(2, memory=[GIB, 40 * GIB], utilisation=5),
        make_card(3, memory=None),
        make_card(4, error=LOST),
    ]
    world.show(*cards)
    chosen = pick()
    assert chosen is not None
    assert chosen.uuid == cards[2]["uuid"]
    assert pick(min_free_mib=39.5 * 1024) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    only = pick()
    assert only is not None
    assert only.index == 0


def test_readings_are_of_the_given_places(world: World, places: Places, tmp_path: Path) -> None:
    world.show(make_card(0))
    assert read_gpus(places, {"CUDA_VISIBLE_DEVICES": "", "HOME": str(tmp_path)}).status.code == "none-given"
