"""What is decided about a GPU before a start, and what the answers of the trial in the container mean."""

from __future__ import annotations

import json
from typing import Literal

import pytest

from jupyter_apptainer.engine.host.gpu import NO_NVIDIA, Nvidia
from jupyter_apptainer.kernels.gpu import plan_gpu
from jupyter_apptainer.kernels.gpu_trial import explain_answer

USABLE = Nvidia(("nvidia0", "nvidia1"), "550.54.15", ("libcuda.so.1", "libnvidia-ml.so.1"))
UNLOADED = Nvidia(("nvidia0",), "550.54.15", (), "the loader does not know libcuda.so.1", "sudo ldconfig")


@pytest.mark.parametrize(
    ("nv", "found", "is_asked_for", "note", "problem"),
    [
        pytest.param("auto", USABLE, True, "device files: nvidia0, nvidia1; driver: 550.54.15", "", id="auto"),
        pytest.param("auto", NO_NVIDIA, False, "no driver loaded", "", id="auto-none"),
        pytest.param("auto", UNLOADED, True, "its libraries: none", "`nv` is auto, but the loader", id="auto-broken"),
        pytest.param(True, USABLE, True, "driver: 550.54.15", "", id="true"),
        pytest.param(True, NO_NVIDIA, True, "device files: none", "`nv` is true, but this machine", id="true-none"),
        pytest.param(True, UNLOADED, True, "its libraries: none", "(try: sudo ldconfig)", id="true-broken"),
        pytest.param(False, USABLE, False, "not looked for", "", id="false"),
    ],
)
def test_plan(nv: Literal["auto"] | bool, found: Nvidia, is_asked_for: bool, note: str, problem: str) -> None:
    plan = plan_gpu(nv, found)
    assert plan.nv is is_asked_for
    assert note in plan.note
    assert problem in plan.problem
    assert bool(plan.problem) is bool(problem)


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        pytest.param({"status": 100}, "CUDA_VISIBLE_DEVICES", id="no-device"),
        pytest.param({"status": 803}, "has to be restarted", id="driver-was-updated"),
        pytest.param({"status": 999}, "cuInit gives 999", id="unknown"),
        pytest.param(
            {"error": "libcuda.so.1: cannot open shared object file: No such file or directory"},
            "are not there",
            id="no-library",
        ),
        pytest.param(
            {"error": "/lib/libc.so.6: version `GLIBC_2.38' not found (required by /.singularity.d/libs/libcuda.so.1)"},
            "needs glibc 2.38, and the image's is older",
            id="glibc",
        ),
    ],
)
def test_answer_of_the_trial(answer: dict[str, object], word: str) -> None:
    text = explain_answer(f"a line of the image's own\n{json.dumps(answer)}\n")
    assert text.startswith("no GPU can be used in the container: ")
    assert word in text


@pytest.mark.parametrize("answer", ['{"status": 0}\n', "", "Segmentation fault\n"], ids=["works", "nothing", "crash"])
def test_without_a_finding_nothing_is_said(answer: str) -> None:
    assert explain_answer(answer) == ""
