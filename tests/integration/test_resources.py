"""Limits that hold, deaths that say why, and GPUs that are missed aloud: in real kernels, as their clients see it."""

from __future__ import annotations

import os
import re
import signal
import textwrap
import time
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager
from nbclient.exceptions import DeadKernelError
from traitlets.config import Config

from jupyter_apptainer.instances.oom import OomRecord
from jupyter_apptainer.kernels.gpu_trial import try_gpu
from jupyter_apptainer.kernels.guard import PREFIX
from tests.integration.conftest import TIMEOUT_S, MakeKernelspec, RunningKernel, StartKernel
from tests.integration.server import Channels, Server
from tests.integration.test_clients import build_notebook, execute

SIZE = r"\d+(?:\.\d)? [MG]iB"
LIMITED = {"nv": False, "resources": {"memory": "400M", "pids": 60, "cpus": 1}}
# Filled in steps, so that it is seen on its way and not only when it is too late.
BYTES = 'bytearray(b"x" * (8 << 20))'
HOG = f"""
import time
kept = []
while True:
    kept.append({BYTES})
    time.sleep(0.01)
"""


@pytest.fixture
def limited(start_kernel: StartKernel) -> RunningKernel:
    return start_kernel(LIMITED)


def wait_dead(kernel: RunningKernel, msg_id: str) -> str:
    """Collect what the cell prints until its kernel is gone for its manager, and a second longer: channels are no faster."""
    text, deadline = "", time.monotonic() + TIMEOUT_S
    is_alive = True
    while is_alive or kernel.client.iopub_channel.socket.poll(1000):
        assert time.monotonic() < deadline, text
        is_alive = kernel.manager.is_alive()
        if kernel.client.iopub_channel.socket.poll(100):
            message = kernel.client.get_iopub_msg(timeout=0)
            if message["parent_header"].get("msg_id") == msg_id and message["msg_type"] == "stream":
                text += message["content"]["text"]
    return text


def test_a_child_that_takes_all_memory_is_named_and_ended_and_the_kernel_goes_on(
    limited: RunningKernel, caplog: pytest.LogCaptureFixture
) -> None:
    assert limited.run("precious = 42").status == "ok"
    reply = limited.run(
        f"import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', '''{HOG}''']).returncode)"
    )
    assert reply.status == "ok"
    assert "-9" in reply.text.splitlines()
    assert re.search(rf"^{PREFIX}memory: 3\d\d MiB of 400 MiB in use, most of it by python", reply.text, re.M), (
        reply.text
    )
    ended = rf"out of memory at {SIZE}, limit 400 MiB: python \(pid \d+, {SIZE}\) was ended, the kernel goes on"
    # The last line may come after the cell's end.
    assert re.search(ended, reply.text + limited.run("import time; time.sleep(0.5)").text)
    assert re.search(ended, caplog.text)
    assert limited.value("precious") == 42


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_a_kernel_that_takes_all_memory_dies_saying_so_and_can_be_restarted(
    start_kernel: StartKernel, caplog: pytest.LogCaptureFixture, transport: str
) -> None:
    manager = KernelManager(config=Config({"ApptainerConfig": {"transport": transport}}))
    limited = start_kernel(LIMITED, manager=manager)
    instance = limited.instance
    text = wait_dead(limited, limited.client.execute(f"import numpy\n{HOG.replace(BYTES, 'numpy.ones(1 << 20)')}"))
    said = rf"out of memory at {SIZE}, limit 400 MiB: the kernel \(pid \d+, {SIZE}\) was ended"
    assert re.search(rf"^{PREFIX}{said}$", text, re.M), text
    assert re.search(said, caplog.text)
    assert [record.levelname for record in caplog.records if "was ended" in record.message] == ["ERROR"]
    limited.manager.restart_kernel(now=True)
    limited.client.wait_for_ready(timeout=TIMEOUT_S)
    assert limited.value("1") == 1
    assert limited.instance == instance


def test_memory_that_forks_share_counts_once(limited: RunningKernel) -> None:
    reply = limited.run(
        textwrap.dedent("""
        import os, time
        shared = b"x" * (200 << 20)
        children = []
        for _ in range(4):
            pid = os.fork()
            if not pid:
                time.sleep(1.5)
                os._exit(0)
            children.append(pid)
        print([os.waitpid(pid, 0)[1] for pid in children])
        """)
    )
    assert reply.text.strip() == "[0, 0, 0, 0]", reply.text


def test_processes_and_processors_are_limited(limited: RunningKernel, caplog: pytest.LogCaptureFixture) -> None:
    assert len(limited.value("sorted(__import__('os').sched_getaffinity(0))")) == 1
    code = """
        import subprocess, time
        started, refused = [], ""
        try:
            for _ in range(100):
                started.append(subprocess.Popen(["sleep", "100"]))
        except OSError as error:
            refused = type(error).__name__
        while not refused and sum(process.poll() is None for process in started) > 60:
            time.sleep(0.05)
        alive = sum(process.poll() is None for process in started)
        for process in started:
            process.kill()
            process.wait()
        """
    assert limited.run(textwrap.dedent(code)).status == "ok"
    # The kernel's own threads count as well, a dozen.
    assert 20 < limited.value("alive") < 60
    if os.getuid():
        assert limited.value("refused") == "BlockingIOError"
    else:
        # One that is caught between fork and exec still has its parent's name.
        assert re.search(r"processes and threads, limit 60: (sleep|python\S*) \(pid", caplog.text), caplog.text
    assert limited.value("subprocess.run(['true']).returncode") == 0


def test_a_killed_kernel_blames_memory_only_where_linux_counted_it(
    kernel: RunningKernel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The counter is a stand-in: Linux' out-of-memory killer cannot be called without a cgroup of one's own."""
    counter = tmp_path / "memory.events"
    for count, is_blamed in ((0, False), (1, True)):
        runner = kernel.provisioner.kernel
        assert runner is not None
        assert runner._guard is not None
        counter.write_text(f"oom 1\noom_kill {count}\n")
        runner._guard._oom = OomRecord(counter, "/job_7", 0)
        found = runner.find_kernel()
        assert found is not None
        msg_id = kernel.begin("import time; time.sleep(60)")
        # What is shown in a cell shows that its number is known to the one who will have to speak.
        runner._guard.announce("still here")
        kernel.wait_text(msg_id, "still here")
        os.kill(found.pid, signal.SIGKILL)
        text = wait_dead(kernel, msg_id)
        reason = "the kernel was killed, probably because memory ran out: Linux' out-of-memory killer was at work in"
        assert (reason in text) is is_blamed, text
        assert (f"{reason} its cgroup, /job_7" in caplog.text) is is_blamed
        kernel.manager.restart_kernel(now=True)
        kernel.client.wait_for_ready(timeout=TIMEOUT_S)


def test_a_notebook_that_ran_out_of_memory_keeps_the_reason(make_kernelspec: MakeKernelspec, tmp_path: Path) -> None:
    notebook = build_notebook("print('before')", HOG)
    with pytest.raises(DeadKernelError):
        execute(notebook, make_kernelspec(LIMITED), tmp_path)
    (output,) = (output for output in notebook.cells[1].outputs if "was ended" in output["text"])
    assert output["name"] == "stderr"
    assert "limit 400 MiB: the kernel (pid" in output["text"]


def test_a_server_tells_its_front_end_before_it_restarts_the_kernel(
    make_kernelspec: MakeKernelspec, tmp_path: Path
) -> None:
    server = Server(tmp_path)
    try:
        kernel_id = server.start_kernel(make_kernelspec(LIMITED))
        with Channels(server, kernel_id) as channels:
            msg_id = channels.execute(HOG)
            while "was ended" not in (message := channels.receive())["content"].get("text", ""):
                assert message["content"].get("execution_state") not in ("restarting", "dead")
            assert message["parent_header"]["msg_id"] == msg_id
            channels.wait_state("restarting")
        # Through new channels, which wait for the kernel: what is sent while it is away may be lost.
        with Channels(server, kernel_id) as channels:
            assert channels.run("1")[0] == "ok"
        assert "limit 400 MiB: the kernel (pid" in server.wait_log("was ended")
    finally:
        server.end()


# --- GPU


def test_a_kernel_that_was_promised_a_gpu_misses_it_aloud(
    start_kernel: StartKernel, caplog: pytest.LogCaptureFixture
) -> None:
    if os.path.exists("/dev/nvidia0"):
        pytest.skip("this machine has a GPU")
    kernel = start_kernel({"nv": True})
    missing = "`nv` is true, but this machine has no NVIDIA GPU"
    assert missing in caplog.text
    assert missing in kernel.run("import time; time.sleep(0.5)").text
    assert missing not in kernel.run("import time; time.sleep(0.5)").text


def test_the_gpus_of_the_job_and_a_driver_that_the_image_cannot_load(start_kernel: StartKernel, tmp_path: Path) -> None:
    """What follows `--nv` on a host whose driver needs a newer glibc than the image has: the image's loader says so."""
    library = make_too_new_library(tmp_path / "libcuda.so.1")
    given = {"CUDA_VISIBLE_DEVICES": "GPU-1a,3", "ZE_AFFINITY_MASK": "0.1", "SLURM_JOB_GPUS": "2"}
    kernel = start_kernel({"binds": [f"{library}:/.singularity.d/libs/libcuda.so.1"]}, env={**os.environ, **given})
    assert kernel.value(f"{{name: __import__('os').environ.get(name) for name in {list(given)}}}") == given
    assert set(kernel.value("sorted(__import__('os').sched_getaffinity(0))")) == os.sched_getaffinity(0)
    runner = kernel.provisioner.kernel
    assert runner is not None
    problem = try_gpu(runner.plan, os.environ)
    assert (
        "/.singularity.d/libs/libcuda.so.1 comes from the host and needs glibc 2.9.9, and the image's is older"
        in problem
    )


def make_too_new_library(path: Path) -> Path:
    """Copy a real library that this process has loaded, and rename a version of glibc that it needs to one that nobody has."""
    import math  # loads it

    assert math
    maps = Path("/proc/self/maps").read_text().splitlines()
    source = next(line.split()[-1] for line in maps if line.endswith("/libm.so.6"))
    path.write_bytes(Path(source).read_bytes().replace(b"GLIBC_2.2.5\0", b"GLIBC_2.9.9\0"))
    return path
