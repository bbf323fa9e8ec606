"""Kernels that come from the fork server of their instance: the same as those that join it, and started in no time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager
from traitlets.config import Config

from jupyter_apptainer.instances.process import ProcessIdentity, read_children, read_stat
from jupyter_apptainer.kernels.adopted import UNKNOWN_STATUS
from jupyter_apptainer.kernels.forked import ForkedKernel
from jupyter_apptainer.places import Places
from tests.integration.conftest import (
    SLEEP,
    TIMEOUT_S,
    RunningKernel,
    StartKernel,
    list_entries,
    make_joining_manager,
)

# The same for every user, and slow.
pytestmark = pytest.mark.user

# What a process can be asked about itself.
FACTS = """
import json, os, resource, signal, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
facts = {
    "cwd": os.getcwd(),
    "env": {k: v for k, v in os.environ.items() if not k.endswith(("_INSTANCE", "_SOCK"))},
    "leads": os.getpid() == os.getsid(0) == os.getpgid(0),
    "limits": [resource.getrlimit(getattr(resource, n)) for n in sorted(dir(resource)) if n.startswith("RLIMIT")],
    "status": {k: status[k].strip() for k in ("Umask", "Uid", "Gid", "Groups", "CapEff", "CapBnd", "NoNewPrivs", "SigBlk", "SigIgn")},
    "namespaces": sorted(n for n in os.listdir("/proc/self/ns")),
    "cores": sorted(os.sched_getaffinity(0)),
    "argv": [os.path.basename(w) for w in sys.argv[:2]],
    "path": [p for p in sys.path if "/tmp" not in p],
    "main": __name__,
    "int": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    "chld": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
    "finders": [getattr(f, "__name__", type(f).__name__) for f in sys.meta_path if f.__module__.startswith(("_frozen", "_jupyter", "__main__"))],
    "input": os.readlink("/proc/self/fd/0"),
}
print(json.dumps(facts))
"""


def find_process(kernel: RunningKernel) -> object:
    runner = kernel.provisioner.kernel
    assert runner is not None
    return runner.process


def find_server(kernel: RunningKernel) -> int:
    (pid,) = read_children(kernel.instance.init.pid)
    return pid


def restart(kernel: RunningKernel, *, now: bool = False) -> None:
    kernel.manager.restart_kernel(now=now)
    kernel.client.wait_for_ready(timeout=TIMEOUT_S)


def read_facts(kernel: RunningKernel) -> dict[str, Any]:
    reply = kernel.run(FACTS)
    assert reply.status == "ok", reply
    return dict(json.loads(reply.text))


def test_a_forked_kernel_sees_what_one_that_joins_sees(start_kernel: StartKernel, tmp_path: Path) -> None:
    config = {"env": {"ODD": "a,b 'c' \"$(d)\"\nnext", "OMP_NUM_THREADS": "1"}}
    forked, joined = start_kernel(config), start_kernel(config, manager=make_joining_manager())
    assert isinstance(find_process(forked), ForkedKernel)
    assert isinstance(find_process(joined), subprocess.Popen)
    first, other = read_facts(forked), read_facts(joined)
    assert first == other
    assert first["env"]["ODD"] == config["env"]["ODD"]
    # So does one that the server has forked once more.
    restart(forked)
    assert read_facts(forked) == other


@pytest.mark.parametrize("is_forked", [True, False], ids=["forked", "joined"])
def test_what_a_client_can_do_is_the_same(start_kernel: StartKernel, is_forked: bool) -> None:
    kernel = start_kernel() if is_forked else start_kernel(manager=make_joining_manager())
    instance = kernel.instance
    # Interrupt, with the programs that the cell has started.
    cell = kernel.begin(
        f"import subprocess\nchild = subprocess.Popen(['sleep', '600'])\nkept = 41\nprint('begun')\n{SLEEP}"
    )
    kernel.wait_text(cell, "begun")
    kernel.manager.interrupt_kernel()
    assert kernel.finish(cell).ename == "KeyboardInterrupt"
    assert kernel.value("[child.wait(), kept]") == [-signal.SIGINT, 41]
    # Input.
    cell = kernel.client.execute("print(input('who? '))", allow_stdin=True)
    kernel.client.get_stdin_msg(timeout=TIMEOUT_S)
    kernel.client.input("me")
    assert kernel.finish(cell).text.endswith("me\n")
    # A signal of the user's, and completion.
    kernel.run("import os, signal\nseen = []\nsignal.signal(signal.SIGUSR1, lambda *_: seen.append(1))")
    kernel.manager.signal_kernel(signal.SIGUSR1)
    assert kernel.value("(__import__('time').sleep(0.1), seen)[1]") == [1]
    # Exit statuses, of an exit and of a signal.
    for code, status in (("import os; os._exit(7)", 7), ("os.kill(os.getpid(), 9)", -signal.SIGKILL)):
        kernel.client.execute(f"import os; {code}")
        process: Any = find_process(kernel)
        assert process.wait(TIMEOUT_S) == status
        assert not kernel.manager.is_alive()
        restart(kernel, now=True)
        assert kernel.instance == instance
    process = find_process(kernel)
    kernel.manager.shutdown_kernel()
    assert process.poll() is not None
    assert not instance.init.is_alive()


def test_what_a_layer_changes_does_not_come_from_the_bundle(start_kernel: StartKernel, tmp_path: Path) -> None:
    find = "{n: type(__import__('sys').modules[n].__loader__).__name__ for n in ('IPython', 'ipykernel')}"
    kernel = start_kernel()
    assert kernel.value(find) == {"IPython": "BundledLoader", "ipykernel": "BundledLoader"}
    path = kernel.value("__import__('IPython').__file__")
    init = tmp_path / "__init__.py"
    init.write_text(kernel.value("open(__import__('IPython').__file__).read()") + "\nCHANGED = True\n")
    changed = start_kernel({"binds": [f"{init}:{path}:ro"]})
    assert changed.value(find) == {"IPython": "SourceFileLoader", "ipykernel": "BundledLoader"}
    assert changed.value("__import__('IPython').CHANGED") is True


def test_a_cell_that_is_sent_right_after_a_restart_is_heard(start_kernel: StartKernel) -> None:
    kernel = start_kernel()
    for number in range(5):
        kernel.manager.restart_kernel(now=True)
        # The same client, whose channels connect again one after the other.
        assert kernel.run(f"print({number})").text == f"{number}\n"


def test_random_numbers_are_drawn_anew_and_modules_are_loaded(start_kernel: StartKernel) -> None:
    kernel = start_kernel({"preload": ["numpy", "matplotlib.pyplot"]})
    seen = []
    for _ in range(2):
        assert kernel.value("[n in __import__('sys').modules for n in ('numpy', 'matplotlib.pyplot')]") == [True, True]
        kernel.run("import random, numpy, multiprocessing as mp")
        seen.append(kernel.value("[random.random(), numpy.random.rand(), mp.current_process().authkey.hex()]"))
        # Matplotlib has found its backend, although it was imported before there was a shell.
        assert "image/png" in kernel.run("import matplotlib.pyplot as plt; plt.plot([1, 2]); None").data
        # BLAS has threads, which a fork must not have lost.
        assert kernel.value("float((numpy.ones((300, 300)) @ numpy.ones((300, 300))).sum())") == 300**3
        restart(kernel)
    assert all(one != other for one, other in zip(*seen, strict=True)), seen


def test_what_must_not_be_forked_is_left_out_with_a_reason(
    start_kernel: StartKernel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "threading_mod.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1e6,), name='busy', daemon=True).start()\n"
    )
    (tmp_path / "good_mod.py").write_text("VALUE = 1\n")
    kernel = start_kernel(
        {"preload": ["good_mod", "threading_mod", "no_such_mod"], "env": {"PYTHONPATH": str(tmp_path)}}, cwd=tmp_path
    )
    assert isinstance(find_process(kernel), ForkedKernel)
    assert kernel.value("[n in __import__('sys').modules for n in ('good_mod', 'threading_mod')]") == [True, False]
    assert "threading_mod: it starts threads when it is imported (busy)" in caplog.text
    assert "no_such_mod: it cannot be imported, ModuleNotFoundError" in caplog.text
    # It works all the same.
    assert kernel.value("__import__('threading_mod').__name__") == "threading_mod"
    # What has changed on disk is imported anew.
    (tmp_path / "good_mod.py").write_text("VALUE = 'another'\n")
    restart(kernel)
    assert isinstance(find_process(kernel), ForkedKernel)
    assert kernel.value("__import__('good_mod').VALUE") == "another"


def test_a_kernel_outlives_its_fork_server(start_kernel: StartKernel, caplog: pytest.LogCaptureFixture) -> None:
    kernel = start_kernel()
    kernel.run("kept = 41")
    server = ProcessIdentity.find(find_server(kernel))
    assert server is not None
    server.send_signal(signal.SIGKILL)
    assert server.wait_gone(TIMEOUT_S)
    assert kernel.value("kept") == 41
    assert kernel.manager.is_alive()
    process: Any = find_process(kernel)
    instance = kernel.instance
    kernel.client.execute("import os; os._exit(7)")
    # Nobody is left who could tell it, but for Linux, until process 1 reaps it.
    assert process.wait(TIMEOUT_S) in (UNKNOWN_STATUS, 7)
    restart(kernel, now=True)
    assert isinstance(find_process(kernel), subprocess.Popen)
    assert kernel.instance == instance
    assert "without its fork server: its fork server has ended" in caplog.text


def test_a_server_that_rests_is_a_shell_and_forks_the_next_as_the_first(start_kernel: StartKernel) -> None:
    settings = Config({"ApptainerConfig": {"fork_rest_s": 0.5}})
    kernel = start_kernel({"env": {"ODD": "a,b 'c' \"$(d)\"\nnext"}}, manager=KernelManager(config=settings))
    facts = read_facts(kernel)
    server = find_server(kernel)
    for status, code in ((7, "os._exit(7)"), (-signal.SIGKILL, "os.kill(os.getpid(), 9)")):
        wait_rest(server)
        assert (find_server(kernel), read_stat(server).comm) == (server, "sh")  # type: ignore[union-attr]  # it is there
        cell = kernel.begin(f"kept = 41\nprint('begun')\n{SLEEP}")
        kernel.wait_text(cell, "begun")
        kernel.manager.interrupt_kernel()
        assert kernel.finish(cell).ename == "KeyboardInterrupt"
        assert kernel.value("kept") == 41
        process: Any = find_process(kernel)
        kernel.client.execute(f"import os; {code}")
        assert process.wait(TIMEOUT_S) == status
        restart(kernel, now=True)
        assert isinstance(find_process(kernel), ForkedKernel)
        assert kernel.value("'kept' in globals()") is False
        assert read_facts(kernel) == facts
    wait_rest(server)
    # It is woken while the kernel still ends.
    restart(kernel)
    assert isinstance(find_process(kernel), ForkedKernel)
    assert read_facts(kernel) == facts
    wait_rest(server)
    assert find_server(kernel) == server
    instance = kernel.instance
    kernel.manager.shutdown_kernel()
    assert not instance.init.is_alive()


def wait_rest(server: int) -> None:
    """Wait until it has begun anew and imported nothing: then no library of a package is mapped. Nothing tells of it."""
    deadline = time.monotonic() + TIMEOUT_S
    while "libzmq" in Path(f"/proc/{server}/maps").read_text():
        assert time.monotonic() < deadline, "the server goes on"
        time.sleep(0.05)


def test_kernels_of_a_shared_instance_come_from_one_server(
    start_kernel: StartKernel, places: Places, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"instance": f"shared:forks-{os.getpid()}"}
    first = start_kernel(config)
    second = start_kernel(config)
    other = start_kernel({**config, "env": {"COLOUR": "red"}})
    assert isinstance(find_process(second), ForkedKernel)
    assert isinstance(find_process(other), subprocess.Popen)
    assert "its variable COLOUR differs from that of the first kernel" in caplog.text
    assert other.value("__import__('os').environ['COLOUR']") == "red"
    server = find_server(first)
    forked = {kernel.manager.provisioner.kernel.process.pid for kernel in (first, second)}  # type: ignore[union-attr]  # ours, and started
    assert {stat.ppid for stat in map(read_stat, forked) if stat} == {server}
    # The end of one, also of the first, is not that of another.
    instance = first.instance
    first.end()
    assert second.value("1") == 1
    second.manager.shutdown_kernel(now=True)
    assert other.value("2") == 2
    assert instance.init.is_alive()
    assert len(list_entries(places)) == 1
