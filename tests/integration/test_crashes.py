"""SIGKILL for each process of the tree in turn: afterwards nothing is left, and the overlay is clean."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo, run_flags
from jupyter_apptainer.instances.janitor import find_leftovers, iter_helpers, sweep
from jupyter_apptainer.instances.process import ProcessIdentity
from jupyter_apptainer.overlays.holder import find_holder, is_locked
from jupyter_apptainer.places import Places
from tests.integration.conftest import TIMEOUT_S, MakeKernelspec, RunningKernel, StartKernel, list_entries

HELPERS = ("squashfuse_ll", "fuse2fs", "fuse-overlayfs")


@pytest.fixture
def overlay(engine: EngineInfo, tmp_path: Path) -> Path:
    """An ext3 overlay of 64 MiB in which /data belongs to the user."""
    path = tmp_path / "layer.img"
    subprocess.run(
        [engine.path, "overlay", "create", "--sparse", "--size", "64", "--create-dir", "/data", path],
        env=build_engine_environment(os.environ),
        check=True,
        capture_output=True,
    )
    return path


@pytest.fixture
def with_overlay(start_kernel: StartKernel, overlay: Path) -> RunningKernel:
    """A kernel with everything that can be killed: three FUSE helpers below it."""
    kernel = start_kernel({"overlays": [str(overlay)]})
    assert kernel.run("open('/data/kept', 'w').write('x' * 100_000); import os; os.sync()").status == "ok"
    return kernel


def is_clean(overlay: Path) -> bool:
    """Read `s_state` of the ext superblock: bit 0 says that it was unmounted properly."""
    with overlay.open("rb") as stream:
        stream.seek(1024 + 0x3A)
        return bool(struct.unpack("<H", stream.read(2))[0] & 1)


def assert_all_gone(kernel: RunningKernel, instance: object, overlay: Path, places: Places) -> None:
    from jupyter_apptainer.instances.model import Instance

    assert isinstance(instance, Instance)
    assert not instance.init.is_alive()
    assert not instance.starter.is_alive()
    assert list(iter_helpers(instance)) == []
    assert not is_locked(str(overlay), for_writing=True)
    assert list_entries(places) == []


@pytest.mark.parametrize("victim", ["kernel", "engine-process"])
def test_the_kernels_death_leaves_the_instance_for_a_restart(
    with_overlay: RunningKernel, overlay: Path, places: Places, victim: str
) -> None:
    runner = with_overlay.provisioner.kernel
    assert runner is not None
    assert runner.process is not None
    found = runner.find_kernel()
    assert found is not None
    instance = with_overlay.instance
    os.kill(found.pid if victim == "kernel" else runner.process.pid, signal.SIGKILL)
    assert found.wait_gone(5)
    assert runner.process.wait(5) == -signal.SIGKILL
    assert not with_overlay.manager.is_alive()
    with_overlay.manager.restart_kernel(now=True)
    with_overlay.client.wait_for_ready(timeout=TIMEOUT_S)
    assert with_overlay.instance == instance
    assert with_overlay.value("len(open('/data/kept').read())") == 100_000
    with_overlay.manager.shutdown_kernel()
    assert_all_gone(with_overlay, instance, overlay, places)
    assert is_clean(overlay)


@pytest.mark.parametrize("victim", ["init", "starter", *HELPERS])
def test_shutdown_after_a_part_of_the_instance_was_killed(
    with_overlay: RunningKernel, overlay: Path, places: Places, victim: str
) -> None:
    instance = with_overlay.instance
    pids = {"init": instance.init.pid, "starter": instance.starter.pid}
    pids |= {stat.comm: stat.pid for stat in iter_helpers(instance)}
    os.kill(pids[victim], signal.SIGKILL)
    with_overlay.manager.shutdown_kernel(now=True)
    assert_all_gone(with_overlay, instance, overlay, places)
    if victim != "fuse2fs":
        # Nothing can write the image back once its own helper was shot; the journal is replayed at the next mount.
        assert is_clean(overlay)


@pytest.mark.parametrize("victim", ["init", "starter", *HELPERS])
def test_restart_after_a_part_of_the_instance_was_killed(
    with_overlay: RunningKernel, overlay: Path, places: Places, victim: str
) -> None:
    before = with_overlay.instance
    pids = {"init": before.init.pid, "starter": before.starter.pid}
    pids |= {stat.comm: stat.pid for stat in iter_helpers(before)}
    os.kill(pids[victim], signal.SIGKILL)
    with_overlay.manager.restart_kernel(now=True)
    with_overlay.client.wait_for_ready(timeout=TIMEOUT_S)
    assert with_overlay.instance.init != before.init
    assert not before.init.is_alive()
    assert list(iter_helpers(before)) == []
    assert with_overlay.value("len(open('/data/kept').read())") == 100_000


SERVER = textwrap.dedent(
    """
    import sys, time
    from jupyter_client.manager import KernelManager
    manager = KernelManager(kernel_name=sys.argv[1])
    manager.start_kernel(cwd=sys.argv[2])
    print("started", flush=True)
    sys.stdin.read()
    {ending}
    """
)


@pytest.fixture
def server(make_kernelspec: MakeKernelspec, overlay: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has started a kernel with the overlay."""
    with _start_server(make_kernelspec({"overlays": [str(overlay)]}), tmp_path, "") as process:
        yield process


def _start_server(name: str, cwd: Path, ending: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER.format(ending=ending), name, cwd],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def kill_with_keeper(server: subprocess.Popen[str], places: Places) -> None:
    """End the server, and before it its keeper: then nobody but the janitor ends the kernel."""
    (entry,) = list_entries(places)
    assert entry.keeper is not None
    entry.keeper.send_signal(signal.SIGKILL)
    server.kill()
    server.wait()


def test_after_the_servers_death_the_janitor_ends_everything(
    server: subprocess.Popen[str], overlay: Path, places: Places
) -> None:
    (entry,) = list_entries(places)
    assert entry.instance is not None
    assert find_leftovers(places) == [], "its owner lives"
    holder = find_holder(str(overlay), places)
    assert holder is not None
    assert (holder.instance, holder.is_alive) == (entry.name, True)
    kill_with_keeper(server, places)
    (leftover,) = find_leftovers(places)
    assert leftover.entry.name == entry.name
    assert entry.instance.init.pid in leftover.processes
    assert entry.instance.init.is_alive(), "finding changes nothing"
    assert [ended.entry.name for ended in sweep(places)] == [entry.name]
    assert not entry.instance.init.is_alive()
    assert list(iter_helpers(entry.instance)) == []
    assert is_clean(overlay)
    assert not is_locked(str(overlay), for_writing=True)
    assert list_entries(places) == []
    assert not any(Path(folder).exists() for folder in entry.directories)


def test_the_next_kernel_sweeps_by_itself(
    server: subprocess.Popen[str], overlay: Path, places: Places, start_kernel: StartKernel
) -> None:
    (entry,) = list_entries(places)
    kill_with_keeper(server, places)
    kernel = start_kernel({"overlays": [str(overlay)]})
    assert kernel.value("1") == 1
    assert [e.name for e in list_entries(places)] == [kernel.instance.name]
    assert entry.instance is not None
    assert not entry.instance.init.is_alive()


@pytest.mark.parametrize("ending", ["", "raise RuntimeError('no shutdown')"], ids=["falls-off-the-end", "exception"])
def test_a_script_that_forgets_to_shut_down_leaves_nothing(
    make_kernelspec: MakeKernelspec, tmp_path: Path, places: Places, ending: str
) -> None:
    with _start_server(make_kernelspec(), tmp_path, ending) as process:
        (entry,) = list_entries(places)
        process.communicate()
    assert entry.instance is not None
    assert not entry.instance.init.is_alive()
    assert list_entries(places) == []


def test_an_instance_of_somebody_else_is_never_touched(
    engine: EngineInfo, starter_image: Path, places: Places, server: subprocess.Popen[str]
) -> None:
    env = build_engine_environment(os.environ)
    name = f"other-{os.getpid()}"
    subprocess.run(
        [engine.path, "instance", "start", *run_flags(engine), starter_image, name],
        env=env,
        check=True,
        capture_output=True,
    )
    try:
        kill_with_keeper(server, places)
        assert len(sweep(places)) == 1
        listed = subprocess.run(
            [engine.path, "instance", "list", name], env=env, check=True, capture_output=True, text=True
        )
        assert name in listed.stdout
    finally:
        subprocess.run([engine.path, "instance", "stop", name], env=env, check=True, capture_output=True)


def test_a_recycled_pid_is_not_mistaken_for_the_owner(server: subprocess.Popen[str], places: Places) -> None:
    (entry,) = list_entries(places)
    identity = ProcessIdentity(entry.owner.pid, entry.owner.start_ticks - 1)
    assert not identity.is_alive()
    assert not identity.send_signal(signal.SIGKILL)
    assert server.poll() is None
    kill_with_keeper(server, places)
    assert len(sweep(places)) == 1
