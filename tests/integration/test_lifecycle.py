"""Start, restart, shutdown: what stays, what goes, and that nothing is left."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from jupyter_client.manager import AsyncKernelManager

from jupyter_apptainer.instances.process import ProcessIdentity
from jupyter_apptainer.instances.stats import iter_members
from jupyter_apptainer.places import Places
from tests.integration.conftest import TIMEOUT_S, MakeKernelspec, RunningKernel, StartKernel, list_entries

pytestmark = pytest.mark.modes


def test_restart_keeps_the_instance_and_its_tmp(kernel: RunningKernel) -> None:
    before = kernel.instance
    kernel.run("open('/tmp/kept', 'w').write('x'); value = 1")
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=TIMEOUT_S)
    assert kernel.instance == before
    assert kernel.value("__import__('os').path.exists('/tmp/kept')") is True
    assert kernel.run("value").ename == "NameError"


def test_restart_now_keeps_the_instance_and_ends_children(kernel: RunningKernel) -> None:
    before = kernel.instance
    kernel.begin(
        "import subprocess, time\nsubprocess.Popen(['sleep', '60'])\nsubprocess.Popen(['sleep', '61'], start_new_session=True)\ntime.sleep(60)"
    )
    kernel.manager.restart_kernel(now=True)
    kernel.client.wait_for_ready(timeout=TIMEOUT_S)
    assert kernel.instance == before
    assert kernel.value("1") == 1
    assert "sleep" not in [member.comm for member in iter_members(before)]


def test_five_restarts_in_a_row(kernel: RunningKernel) -> None:
    before = kernel.instance
    for round_ in range(5):
        kernel.manager.restart_kernel(now=bool(round_ % 2))
        kernel.client.wait_for_ready(timeout=TIMEOUT_S)
        assert kernel.value(str(round_)) == round_
    assert kernel.instance == before


def test_restart_after_the_instance_died_starts_a_new_one(kernel: RunningKernel) -> None:
    before = kernel.instance
    os.kill(before.init.pid, signal.SIGKILL)
    assert before.init.wait_gone(5)
    kernel.manager.restart_kernel(now=True)
    kernel.client.wait_for_ready(timeout=TIMEOUT_S)
    assert kernel.instance.init != before.init
    assert kernel.value("2") == 2


def test_shutdown_lets_atexit_run_then_the_instance_goes(kernel: RunningKernel, tmp_path: Path, places: Places) -> None:
    instance = kernel.instance
    (entry,) = list_entries(places)
    kernel.run(f"import atexit; atexit.register(lambda: open({str(tmp_path / 'said')!r}, 'w').write('goodbye'))")
    kernel.manager.shutdown_kernel()
    assert (tmp_path / "said").read_text() == "goodbye"
    assert not instance.init.is_alive()
    assert not instance.starter.is_alive()
    assert list_entries(places) == []
    assert not any(Path(folder).exists() for folder in entry.directories)
    assert not Path(instance.record_path).parent.exists()
    assert not any(Path(path).exists() for path in instance.log_paths)


def test_shutdown_now_leaves_nothing(kernel: RunningKernel, places: Places) -> None:
    instance = kernel.instance
    kernel.begin("import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)")
    kernel.manager.shutdown_kernel(now=True)
    assert not instance.init.is_alive()
    assert list_entries(places) == []


def test_a_kernel_that_ignores_shutdown_is_ended(start_kernel: StartKernel) -> None:
    kernel = start_kernel()
    kernel.manager.shutdown_wait_time = 1.0
    instance = kernel.instance
    cell = kernel.begin(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "print('begun')\nwhile True: time.sleep(1)"
    )
    kernel.wait_text(cell, "begun")
    kernel.manager.shutdown_kernel()
    assert not instance.init.is_alive()


def test_cleanup_before_any_start_and_twice(kernel: RunningKernel) -> None:
    kernel.manager.shutdown_kernel()
    provisioner = kernel.manager.provisioner
    assert provisioner is None or not provisioner.has_process


def test_twenty_kernels_at_once(make_kernelspec: MakeKernelspec, tmp_path: Path, places: Places) -> None:
    name = make_kernelspec()

    async def one(number: int) -> int:
        manager = AsyncKernelManager(kernel_name=name)
        await manager.start_kernel(cwd=str(tmp_path))
        client = manager.client()
        client.start_channels()
        try:
            await client.wait_for_ready(timeout=TIMEOUT_S * 2)
            reply = await client.execute_interactive(f"assert {number} >= 0", timeout=TIMEOUT_S)
            assert reply["content"]["status"] == "ok"
            pid = manager.provisioner.kernel.instance.init.pid  # type: ignore[union-attr]  # ours, and started
        finally:
            client.stop_channels()
            await manager.shutdown_kernel()
        return int(pid)

    async def all_() -> list[int]:
        return await asyncio.gather(*(one(number) for number in range(20)))

    pids = asyncio.run(all_())
    assert len(set(pids)) == 20
    assert not any(ProcessIdentity.find(pid) for pid in pids)
    assert list_entries(places) == []


def test_a_cancelled_start_leaves_nothing(make_kernelspec: MakeKernelspec, tmp_path: Path, places: Places) -> None:
    name = make_kernelspec()

    async def start_and_cancel(after_s: float) -> bool:
        manager = AsyncKernelManager(kernel_name=name)
        task = asyncio.ensure_future(manager.start_kernel(cwd=str(tmp_path)))
        await asyncio.sleep(after_s)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            if not manager.has_kernel:
                return True
        # It was quicker than we; jupyter_client waits 10 ms more when the kernel runs.
        await manager.shutdown_kernel(now=True)
        return False

    cancelled = []
    for after_s in (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3):
        cancelled.append(asyncio.run(start_and_cancel(after_s)))
        assert list_entries(places) == [], after_s
    assert sum(cancelled) > 5
