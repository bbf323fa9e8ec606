"""Spare kernels: the next start takes one that is there already, and nobody can tell."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager
from traitlets.config import Config

from jupyter_apptainer.instances.process import ProcessIdentity
from jupyter_apptainer.kernels import forking
from tests.integration.conftest import (
    TIMEOUT_S,
    RunningKernel,
    StartKernel,
    find_pid,
    list_spares,
    make_joining_manager,
)
from tests.integration.test_forked import find_server, read_facts, restart

# The same for every user, and slow.
pytestmark = pytest.mark.user

# A container with one kernel has a spare for its restart where something is preloaded.
PRELOAD = {"preload": ["json"]}
# Every place where the name of the spare's own folder is still to be seen. What holds the cell itself does not count.
TRACES = """
import gc, json, os, re
pattern = re.compile(re.escape({folder!r}) + "/[A-Z2-7]{{3}}(/|$)")
seen = [repr(type(o))[:40] + " " + repr(v)[:200] for o in gc.get_objects() if isinstance(o, (dict, list, tuple, set))
        for v in (list(o.values()) if isinstance(o, dict) else list(o)) if isinstance(v, str) and len(v) < 300 and pattern.search(v)]
seen += [f"{{n}}={{v}}" for n, v in os.environ.items() if pattern.search(v)]
print(json.dumps(seen))
"""


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forking, "SETTLE_S", 0.0)


def read_history(kernel: RunningKernel) -> int:
    return int(kernel.value("get_ipython().history_manager.session_number"))


def test_a_restart_takes_the_spare_and_it_is_the_same_kernel(start_kernel: StartKernel) -> None:
    config = {**PRELOAD, "env": {"ODD": "a,b 'c'"}}
    kernel, joined = start_kernel(config), start_kernel(config, manager=make_joining_manager())
    session = read_history(joined)
    (spare,) = list_spares(kernel.manager)
    restart(kernel)
    assert find_pid(kernel.manager) == spare
    # Its number in the history is drawn at its start, not before.
    assert read_history(kernel) == session + 1
    assert read_facts(kernel) == read_facts(joined)
    runner = kernel.provisioner.kernel
    assert runner is not None
    folder = runner.plan.private_dir
    assert json.loads(kernel.run(TRACES.format(folder=folder)).text) == []
    assert kernel.value("__import__('ipykernel').get_connection_file()") == runner.plan.connection_file
    # Its end is told, and the one after it is a spare again.
    for code, status in (("os._exit(7)", 7), ("os.kill(os.getpid(), 9)", -signal.SIGKILL)):
        (spare,) = list_spares(kernel.manager)
        process: Any = runner.process
        kernel.client.execute(f"import os; {code}")
        assert process.wait(TIMEOUT_S) == status
        restart(kernel, now=True)
        assert find_pid(kernel.manager) == spare
    assert kernel.run("print(1)").text == "1\n"


def test_a_kernel_of_a_shared_instance_takes_the_spare_with_its_own_folder_and_name(
    start_kernel: StartKernel, tmp_path: Path
) -> None:
    config = {"instance": f"shared:spare-{os.getpid()}", "binds": [str(tmp_path)]}
    (tmp_path / "sub").mkdir()
    settings = Config({"ApptainerConfig": {"sign_ipc_messages": True}})
    first = start_kernel(config, env={"JPY_SESSION_NAME": "/one.ipynb"})
    (spare,) = list_spares(first.manager)
    second = start_kernel(
        config,
        env={"JPY_SESSION_NAME": "/two.ipynb"},
        cwd=tmp_path / "sub",
        manager=KernelManager(config=settings),
    )
    assert find_pid(second.manager) == spare
    assert second.manager.session.key
    own, facts = read_facts(first), read_facts(second)
    here = str(tmp_path / "sub")
    assert (facts.pop("cwd"), facts["env"].pop("PWD"), facts["env"].pop("JPY_SESSION_NAME")) == (
        *(here, here),
        "/two.ipynb",
    )
    del own["cwd"], own["env"]["PWD"], own["env"]["JPY_SESSION_NAME"]
    assert facts == own
    assert second.value("[__session__, str(_dh[0]), get_ipython().starting_dir]") == ["/two.ipynb", here, here]
    assert read_history(first) != read_history(second)
    # A third, which no client has named.
    list_spares(second.manager)
    third = start_kernel(config)
    assert third.value("['__session__' in globals(), 'JPY_SESSION_NAME' in __import__('os').environ]") == [False, False]
    # What they print is their own, also what does not come from Python.
    assert second.run("import os; os.system('echo two'); None").text == "two\n"
    assert third.run("import os; os.system('echo three'); None").text == "three\n"


def change_module(tmp_path: Path, kernel: RunningKernel) -> None:
    (tmp_path / "own_mod.py").write_text("VALUE = 'another'\n")


def add_config(tmp_path: Path, kernel: RunningKernel) -> None:
    folder = tmp_path / "ipython" / "profile_default"
    (folder / "ipython_config.json").write_text('{"InteractiveShellApp": {"exec_lines": ["CONFIGURED = 1"]}}')


def replace_history(tmp_path: Path, kernel: RunningKernel) -> None:
    (tmp_path / "ipython" / "profile_default" / "history.sqlite").unlink()


def end_spare(tmp_path: Path, kernel: RunningKernel) -> None:
    (spare,) = list_spares(kernel.manager)
    identity = ProcessIdentity.find(spare)
    assert identity is not None
    identity.send_signal(signal.SIGKILL)
    assert identity.wait_gone(TIMEOUT_S)


def stop_spare(tmp_path: Path, kernel: RunningKernel) -> None:
    (spare,) = list_spares(kernel.manager)
    os.kill(spare, signal.SIGSTOP)


def test_a_spare_that_is_out_of_date_or_gone_is_not_handed_out(
    start_kernel: StartKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forking, "PATIENCE_S", 1.0)
    (tmp_path / "own_mod.py").write_text("VALUE = 1\n")
    env = {"PYTHONPATH": str(tmp_path), "IPYTHONDIR": str(tmp_path / "ipython")}
    kernel = start_kernel({"preload": ["own_mod"], "env": env}, cwd=tmp_path)
    runner = kernel.provisioner.kernel
    assert runner is not None
    changes: list[Callable[[Path, RunningKernel], None]] = [
        *(change_module, add_config, replace_history, end_spare, stop_spare)
    ]
    for change in changes:
        (spare,) = list_spares(kernel.manager)
        change(tmp_path, kernel)
        restart(kernel, now=True)
        assert find_pid(kernel.manager) != spare, change.__name__
        assert not os.path.exists(f"/proc/{spare}"), change.__name__
        assert kernel.value("[__import__('own_mod').VALUE, globals().get('CONFIGURED')]") == ["another"] + (
            [None] if change is change_module else [1]
        )
    # Code of the user's that runs while a kernel starts may look at anything: there are no spares then.
    (tmp_path / "ipython" / "profile_default" / "ipython_config.py").write_text("c = get_config()\n")
    restart(kernel, now=True)
    assert list_spares(kernel.manager) == []
    left = [path.name for path in Path(runner.plan.private_dir).iterdir() if path.is_dir()]
    assert set(left) <= {"__pycache__", "bridge"}


def test_spares_end_with_their_time_and_with_their_server(start_kernel: StartKernel) -> None:
    settings = Config({"ApptainerConfig": {"spare_idle_s": 0.0}})
    brief = start_kernel(PRELOAD, manager=KernelManager(config=settings))
    assert list_spares(brief.manager) == []
    none = start_kernel(PRELOAD, manager=KernelManager(config=Config({"ApptainerConfig": {"spare_kernels": 0}})))
    assert list_spares(none.manager) == []
    kernel = start_kernel(PRELOAD)
    (pid,) = list_spares(kernel.manager)
    spare = ProcessIdentity.find(pid)
    server = ProcessIdentity.find(find_server(kernel))
    assert spare is not None
    assert server is not None
    server.send_signal(signal.SIGKILL)
    assert spare.wait_gone(TIMEOUT_S)
    assert kernel.value("1 + 1") == 2
