"""Which devices somebody was given."""

from __future__ import annotations

import pytest

from jupyter_apptainer.gpu import read_gpus
from jupyter_apptainer.gpu.given import choose_given
from jupyter_apptainer.gpu.model import Device
from tests.gpu.world import World, make_card

CARDS = tuple(Device("nvidia", index, None, f"GPU-{index}aaa", "A100", "555") for index in range(4))
SLICED = (
    Device("nvidia", 0, 0, "MIG-00", "A100", "555"),
    Device("nvidia", 0, 1, "MIG-01", "A100", "555"),
    Device("nvidia", 1, None, "GPU-1aaa", "A100", "555"),
)
RADEON = Device("amd", 0, None, "GPU-f00d", "Radeon", None)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"CUDA_VISIBLE_DEVICES": "2,0"}, [0, 2]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-3"}, [3]),
        ({"CUDA_VISIBLE_DEVICES": "1,9,2"}, [1]),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, []),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, []),
        ({"SLURM_JOB_GPUS": "1-2"}, [1, 2]),
        ({"SLURM_JOB_GPUS": "0,1,2", "SLURM_STEP_GPUS": "2"}, [2]),
        ({"SLURM_JOB_GPUS": "4,5,6,7"}, [0, 1, 2, 3]),
        ({"SLURM_JOB_GPUS": "gpu:tesla"}, [0, 1, 2, 3]),
        ({"SLURM_JOB_GPUS": "3", "CUDA_VISIBLE_DEVICES": "0"}, [0]),
        ({"ROCR_VISIBLE_DEVICES": ""}, [0, 1, 2, 3]),
    ],
    ids=lambda value: ",".join(f"{n}={v}" for n, v in value.items()) or "all" if isinstance(value, dict) else "",
)
def test_variables_restrict_as_they_do_for_cuda_and_slurm(environ: dict[str, str], expected: list[int]) -> None:
    assert [device.index for device in choose_given(CARDS, environ)] == expected


def test_a_slice_is_named_by_its_uuid_and_a_number_means_a_card() -> None:
    assert choose_given(SLICED, {"CUDA_VISIBLE_DEVICES": "MIG-01"}) == SLICED[1:2]
    assert choose_given(SLICED, {"CUDA_VISIBLE_DEVICES": "1"}) == SLICED[2:]


def test_each_vendor_has_a_variable_of_its_own() -> None:
    assert choose_given((*CARDS, RADEON), {"CUDA_VISIBLE_DEVICES": ""}) == (RADEON,)
    assert choose_given((CARDS[0], RADEON), {"ROCR_VISIBLE_DEVICES": ""}) == (CARDS[0],)


def test_what_is_hidden_is_counted_and_can_be_shown(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.show(*(make_card(index) for index in range(8)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    report = read_gpus()
    assert ([device.index for device in report.devices], report.hidden) == ([5], 7)
    assert len(read_gpus(is_all=True).devices) == 8


def test_nothing_given_is_a_status_that_names_the_variable(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.show(make_card(0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    report = read_gpus()
    assert (report.status.code, report.devices, report.hidden) == ("none-given", (), 1)
    assert "CUDA_VISIBLE_DEVICES=" in report.status.reason
    assert read_gpus(is_all=True).status.code == "ok"
