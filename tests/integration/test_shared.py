"""Several kernels in one instance: joined by those who ask for the same, refused to others, ended with the last."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from jupyter_client.manager import AsyncKernelManager

from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.instances.janitor import stop_instance
from jupyter_apptainer.kernels.provisioner import StartFailed
from jupyter_apptainer.overlays.holder import is_locked
from jupyter_apptainer.places import Places
from tests.integration.conftest import (
    TIMEOUT_S,
    MakeKernelspec,
    RunningKernel,
    StartKernel,
    drain,
    list_entries,
)

SHARED = {"instance": "shared:lab"}


@pytest.fixture
def pair(start_kernel: StartKernel) -> tuple[RunningKernel, RunningKernel]:
    """Two kernels in one instance."""
    return start_kernel(SHARED), start_kernel(SHARED)


def get_private_dir(kernel: RunningKernel) -> Path:
    assert kernel.provisioner.kernel is not None
    return Path(kernel.provisioner.kernel.plan.private_dir)


def test_they_share_the_instance_until_the_last_ends(pair: tuple[RunningKernel, RunningKernel], places: Places) -> None:
    first, second = pair
    assert first.instance == second.instance
    first.run("open('/tmp/ours', 'w').write('x'); x = 1")
    assert second.value("open('/tmp/ours').read()") == "x"
    assert second.value("'x' in dir()") is False
    folders = [get_private_dir(kernel) for kernel in pair]
    assert folders[0].parent == folders[1].parent != places.runtime
    assert [stat.S_IMODE(path.stat().st_mode) for path in (*folders, folders[0].parent)] == [0o700] * 3
    instance = first.instance
    first.end()
    assert not folders[0].exists()
    assert second.value("1 + 1") == 2
    assert [entry.instance for entry in list_entries(places)] == [instance]
    second.end()
    assert not instance.init.is_alive()
    assert list_entries(places) == []


def test_interrupt_restart_and_kill_are_for_one_of_them(
    pair: tuple[RunningKernel, RunningKernel], places: Places
) -> None:
    first, second = pair
    instance = first.instance
    cells = [
        kernel.begin(
            "import subprocess; child = subprocess.Popen(['sleep', '60']); print('begun'); print(child.wait())"
        )
        for kernel in pair
    ]
    # ipykernel sends no reply when it is interrupted between a cell's announcement and its code.
    for kernel, cell in zip(pair, cells, strict=True):
        kernel.wait_text(cell, "begun")
    first.manager.interrupt_kernel()
    assert first.finish(cells[0]).ename == "KeyboardInterrupt"
    first.manager.restart_kernel(now=True)
    first.client.wait_for_ready(timeout=TIMEOUT_S)
    assert first.instance == second.instance == instance
    runner = first.provisioner.kernel
    assert runner is not None
    found = runner.find_kernel()
    assert found is not None
    os.kill(found.pid, signal.SIGKILL)
    assert found.wait_gone(5)
    second.manager.interrupt_kernel()
    assert second.finish(cells[1]).ename == "KeyboardInterrupt"
    assert second.value("1 + 1") == 2


@pytest.mark.user
@pytest.mark.parametrize(
    ("config", "word"),
    [
        pytest.param({"home": "none"}, 'home by default there, "none" here', id="home"),
        pytest.param({"binds": ["/usr:/mnt"]}, "binds by default there", id="binds"),
    ],
)
def test_a_kernel_that_wants_something_else_is_refused(
    start_kernel: StartKernel, config: dict[str, object], word: str
) -> None:
    first = start_kernel(SHARED)
    with pytest.raises(StartFailed, match="shared:NAME") as caught:
        start_kernel(SHARED | config)
    assert word in str(caught.value)
    assert first.value("1") == 1
    assert start_kernel(SHARED | {"env": {"OWN": "1"}}).value("__import__('os').environ['OWN']") == "1"


@pytest.mark.user
def test_a_notebook_in_a_folder_that_the_instance_does_not_see_is_refused(
    start_kernel: StartKernel, tmp_path: Path
) -> None:
    for name in ("here", "here/below", "there"):
        (tmp_path / name).mkdir()
    start_kernel(SHARED, cwd=tmp_path / "here")
    below = start_kernel(SHARED, cwd=tmp_path / "here/below")
    assert below.value("__import__('os').getcwd()") == str(tmp_path / "here/below")
    with pytest.raises(StartFailed, match="is not seen in the shared instance") as caught:
        start_kernel(SHARED, cwd=tmp_path / "there")
    assert str(tmp_path / "there") in str(caught.value)


def test_an_overlay_is_written_to_by_all_of_them(
    start_kernel: StartKernel, engine: EngineInfo, tmp_path: Path, places: Places
) -> None:
    layer = tmp_path / "layer.img"
    subprocess.run(
        [engine.path, "overlay", "create", "--sparse", "--size", "64", "--create-dir", "/data", layer],
        env=build_engine_environment(os.environ),
        check=True,
        capture_output=True,
    )
    config = SHARED | {"overlays": [str(layer)]}
    first, second = start_kernel(config), start_kernel(config)
    first.run("open('/data/kept', 'w').write('x')")
    assert second.value("open('/data/kept').read()") == "x"
    with pytest.raises(StartFailed, match="in use by"):
        start_kernel({"overlays": [str(layer)]})
    first.end()
    second.run("open('/data/kept', 'a').write('y')")
    second.end()
    assert not is_locked(str(layer), for_writing=True)
    assert start_kernel({"overlays": [str(layer)]}).value("open('/data/kept').read()") == "xy"


@pytest.mark.user
def test_after_the_instances_death_all_come_back_in_one(
    pair: tuple[RunningKernel, RunningKernel], places: Places
) -> None:
    before = pair[0].instance
    stop_instance(places, before)
    for kernel in pair:
        kernel.manager.restart_kernel(now=True)
        kernel.client.wait_for_ready(timeout=TIMEOUT_S)
        drain(kernel.client)
    assert pair[0].instance == pair[1].instance != before
    pair[0].end()
    assert pair[1].value("2") == 2


def test_starts_and_ends_at_once(make_kernelspec: MakeKernelspec, tmp_path: Path, places: Places) -> None:
    name = make_kernelspec(SHARED)

    async def one(is_cancelled: bool) -> int:
        manager = AsyncKernelManager(kernel_name=name)
        start = asyncio.ensure_future(manager.start_kernel(cwd=str(tmp_path)))
        if is_cancelled:
            await asyncio.wait({start}, timeout=0.1)
            start.cancel()
        try:
            await start
            return int(manager.provisioner.kernel.instance.init.pid)  # type: ignore[union-attr]  # ours, and started
        except asyncio.CancelledError:
            return 0
        finally:
            await manager.shutdown_kernel(now=True)

    async def all_() -> list[int]:
        return await asyncio.gather(*(one(number % 3 == 2) for number in range(6)))

    pids = asyncio.run(all_())
    assert len([pid for pid in pids if pid]) >= 4
    assert list_entries(places) == []
