"""Spare containers: the next kernel gets one that waits, and it is the same as one of its own."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager
from jupyter_client.multikernelmanager import MultiKernelManager
from traitlets.config import Config

from jupyter_apptainer.instances.model import SPARE_PREFIX
from jupyter_apptainer.instances.process import read_children
from jupyter_apptainer.kernels import spares
from jupyter_apptainer.kernels.plan import build_launch_plan
from jupyter_apptainer.kernels.running import iter_running, stop_running
from jupyter_apptainer.kernels.spares import can_have_spare, pool
from jupyter_apptainer.kernels.spec import parse_container_spec
from jupyter_apptainer.places import Places
from tests.integration.conftest import TIMEOUT_S, RunningKernel, StartKernel, find_pid, list_entries
from tests.integration.test_forked import read_facts
from tests.kernels.plans import CONTEXT

MakeManager = Callable[..., KernelManager]


@pytest.fixture
def make_manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeManager]:
    """Kernel managers as a server has them, which keeps one spare, and starts it at once."""
    monkeypatch.setattr(spares, "SETTLE_S", 0.0)

    def make(**settings: Any) -> KernelManager:
        config = Config({"ApptainerConfig": {"spare_containers": 1, **settings}})
        return KernelManager(config=config, parent=MultiKernelManager(config=config))

    yield make
    pool.clear(TIMEOUT_S)


def find_entry(kernel: RunningKernel) -> str:
    assert kernel.provisioner.kernel is not None
    return kernel.provisioner.kernel.plan.entry_name


def test_the_next_kernel_of_the_same_kind_runs_in_the_spare(
    start_kernel: StartKernel, make_manager: MakeManager, places: Places, tmp_path: Path
) -> None:
    config = {"env": {"ODD": "a,b 'c'"}, "binds": [f"{tmp_path}:/data"]}
    (tmp_path / "sub").mkdir()
    first = start_kernel(config, env={"JPY_SESSION_NAME": "/one.ipynb"}, manager=make_manager())
    assert pool.wait_ready(TIMEOUT_S)
    (spare,) = [entry for entry in list_entries(places) if entry.is_spare]
    assert spare.instance is not None
    (server,) = read_children(spare.instance.init.pid)
    (waiting_kernel,) = read_children(server)
    assert [row.instance for row in iter_running(places)] == [find_entry(first)]

    # Its own notebook, in a folder below.
    name = first.manager.kernel_name
    second = start_kernel(
        name=name, env={"JPY_SESSION_NAME": "/two.ipynb"}, cwd=tmp_path / "sub", manager=make_manager()
    )
    assert find_entry(second) == spare.name
    # The kernel itself was there before it was asked for.
    assert find_pid(second.manager) == waiting_kernel
    (row,) = [row for row in iter_running(places) if row.instance == spare.name]
    assert (row.kernel_id, row.label, row.state) == (second.manager.kernel_id, "/two.ipynb", "running")
    facts, own = read_facts(second), read_facts(first)
    assert facts["env"].pop("JPY_SESSION_NAME") == "/two.ipynb"
    assert facts.pop("cwd") == str(tmp_path / "sub")
    assert facts["env"].pop("PWD") == str(tmp_path / "sub")
    del own["cwd"], own["env"]["JPY_SESSION_NAME"], own["env"]["PWD"]
    assert facts == own
    assert second.value("__import__('os').listdir('/tmp')") == first.value("__import__('os').listdir('/tmp')")

    # Restart stays in it, and its end leaves nothing.
    second.manager.restart_kernel()
    second.client.wait_for_ready(timeout=TIMEOUT_S)
    assert find_entry(second) == spare.name
    instance = second.instance
    second.end()
    assert not instance.init.is_alive()
    assert not Path(spare.directories[0]).exists()

    # Another variable: a container of its own, and a spare like it in the place of the one that waits.
    assert pool.wait_ready(TIMEOUT_S)
    (waiting,) = [entry.name for entry in list_entries(places) if entry.is_spare]
    third = start_kernel({**config, "env": {"ODD": "c"}}, manager=make_manager())
    assert find_entry(third) != waiting
    assert pool.wait_ready(TIMEOUT_S)
    (newer,) = [entry for entry in list_entries(places) if entry.is_spare]
    assert newer.name != waiting

    # Somebody ends it: the kernel that asks gets a container of its own, and the server has another one ready.
    assert stop_running(places, newer.name) == [(newer, True)]
    fourth = start_kernel(name=third.manager.kernel_name, manager=make_manager())
    assert not find_entry(fourth).startswith(SPARE_PREFIX)
    assert pool.wait_ready(TIMEOUT_S)


@pytest.mark.user  # the same for every user
def test_what_has_changed_is_not_in_a_kernel_and_what_nobody_wants_ends(
    start_kernel: StartKernel, make_manager: MakeManager, places: Places, tmp_path: Path, starter_image: Path
) -> None:
    image, data, work = tmp_path / "own.sif", tmp_path / "data", tmp_path / "work"
    shutil.copyfile(starter_image, image)
    for folder in (data, work):
        folder.mkdir()
    config = {"image": str(image), "binds": [f"{data}:/data"]}
    name = start_kernel(config, cwd=work, manager=make_manager()).manager.kernel_name
    assert pool.wait_ready(TIMEOUT_S)
    # Another folder has the name of the one that is bound.
    data.rename(tmp_path / "old")
    data.mkdir()
    (data / "new").touch()
    second = start_kernel(name=name, cwd=work, manager=make_manager())
    assert not find_entry(second).startswith(SPARE_PREFIX)
    assert second.value("__import__('os').listdir('/data')") == ["new"]
    # The image file is another one.
    os.utime(image)
    third = start_kernel(name=name, cwd=work, manager=make_manager(spare_idle_s=0.0))
    assert not find_entry(third).startswith(SPARE_PREFIX)
    keepers = [thread for thread in threading.enumerate() if thread.name == "spare-container"]
    for keeper in keepers:
        keeper.join(TIMEOUT_S)
    assert not [keeper for keeper in keepers if keeper.is_alive()]
    assert not [entry for entry in list_entries(places) if entry.is_spare]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"overlays": ("/o.img",)}, id="an overlay that somebody else may want"),
        pytest.param({"extra": ("--scratch", "/x")}, id="flags that are not known"),
        pytest.param({"memory_bytes": 1 << 30}, id="limits that carry its name"),
    ],
)
def test_what_a_spare_would_take_from_others_is_not_kept(changes: dict[str, Any]) -> None:
    plan = build_launch_plan(parse_container_spec({"image": "/i.sif"}), replace(CONTEXT, fork_obstacle=""))
    assert can_have_spare(plan)
    assert not can_have_spare(replace(plan, options=replace(plan.options, **changes)))
    assert not can_have_spare(replace(plan, fork_server=None))
