"""A lesson of a deep learning course: its image is built, its notebook trains, its sliders react, what is installed stays."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from jupyter_apptainer.places import Places
from tests.integration.conftest import RunningKernel, StartKernel, remove_overlay

# A big image, and nothing in it depends on who runs it.
pytestmark = [pytest.mark.user, pytest.mark.slow, pytest.mark.timeout(900)]

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks/how-a-model-learns.ipynb"
REQUIREMENTS = "torch==2.13.0\nfastai\nipywidgets\nmatplotlib\n"


@pytest.fixture(scope="module")
def course_image(starter_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PyTorch and fastai in an image, as somebody who has a requirements.txt would make it."""
    folder = tmp_path_factory.mktemp("course")
    (folder / "requirements.txt").write_text(REQUIREMENTS)
    program = [sys.executable, "-m", "jupyter_apptainer.cli.main", "image", "build"]
    options = ["--requirements", "requirements.txt", "--base", str(starter_image), "--host-settings"]
    subprocess.run([*program, "course.sif", *options], cwd=folder, check=True)
    return folder / "course.sif"


def iter_cells() -> Iterator[str]:
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]  # has annotations for a part of its functions only
    yield from (cell.source for cell in notebook.cells if cell.cell_type == "code")


def run_and_collect(kernel: RunningKernel, msg_id: str) -> tuple[str, list[dict[str, Any]]]:
    """Return what a request printed, and all its messages."""
    messages: list[dict[str, Any]] = []
    while True:
        message = kernel.client.get_iopub_msg(timeout=300)
        if message["parent_header"].get("msg_id") != msg_id:
            continue
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            text = "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream")
            return text, messages
        messages.append(message)


def read_number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found, text
    return float(found[1])


def move_slider(kernel: RunningKernel, comm_id: str, value: float) -> str:
    """What a front end does when a slider is dragged; returns what is printed thereupon."""
    content = {"comm_id": comm_id, "data": {"method": "update", "state": {"value": value}, "buffer_paths": []}}
    message = kernel.client.session.msg("comm_msg", content)
    kernel.client.shell_channel.send(message)
    return run_and_collect(kernel, message["header"]["msg_id"])[0]


def test_the_lesson_trains_its_sliders_react_and_what_is_installed_stays(
    course_image: Path, start_kernel: StartKernel, wheels: Path, places: Places
) -> None:
    wheel = wheels / "tinything-1.0-py3-none-any.whl"
    config = {"image": str(course_image), "overlays": ["auto:256"]}
    kernel = start_kernel(config)
    printed = ""
    sliders: dict[str, str] = {}
    for cell in iter_cells():
        text, messages = run_and_collect(kernel, kernel.client.execute(cell))
        assert not [m["content"] for m in messages if m["msg_type"] == "error"]
        printed += text
        opened = [m["content"] for m in messages if m["msg_type"] == "comm_open"]
        states = {content["comm_id"]: content["data"]["state"] for content in opened}
        sliders |= {s["description"]: c for c, s in states.items() if s["_model_name"] == "FloatSliderModel"}
    assert read_number(r"(\S+) at last", printed) < read_number(r"error (\S+) at first", printed) / 4
    assert read_number(r"(\S+) after sixty", printed) < read_number(r"loss (\S+) after one", printed)
    assert sorted(sliders) == ["a", "b", "c"]
    far, near = (read_number(r"error (\S+)", move_slider(kernel, sliders["a"], value)) for value in (0.0, 3.0))
    assert near < far

    assert kernel.run(f"%pip install -q --no-index {wheel}").status == "ok"
    assert kernel.value("__import__('tinything').VERSION") == "1.0"
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=60)
    assert kernel.value("__import__('tinything').VERSION") == "1.0"
    name = kernel.manager.kernel_name
    kernel.end()
    again = start_kernel(name=name)
    assert again.value("__import__('tinything').VERSION") == "1.0"
    assert again.value("__import__('torch').ones(3).sum().item()") == 3.0
    again.end()
    remove_overlay(name, places)
    bare = start_kernel({"image": str(course_image)})
    assert "add one" in bare.run(f"%pip install -q --no-index {wheel}").text.lower()
