"""The same kernel.json for clients that start `argv` themselves: VS Code, Positron, nteract, jupyverse."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file
from jupyter_client.kernelspec import KernelSpecManager

from jupyter_apptainer.instances.process import ProcessIdentity
from jupyter_apptainer.kernels.running import stop_running
from jupyter_apptainer.places import Places
from tests.integration.conftest import SLEEP, TIMEOUT_S, MakeKernelspec, list_entries

Start = Callable[..., tuple["subprocess.Popen[str]", BlockingKernelClient]]


@pytest.fixture
def start(make_kernelspec: MakeKernelspec, tmp_path: Path) -> Iterator[Start]:
    """Start a kernel as such a client does: fill in {connection_file}, run argv, connect."""
    with ExitStack() as stack:

        def start_(config: dict[str, object] | None = None) -> tuple[subprocess.Popen[str], BlockingKernelClient]:
            argv = KernelSpecManager().get_kernel_spec(make_kernelspec(config)).argv
            connection_file, _ = write_connection_file(str(tmp_path / "connection.json"))
            argv = [word.replace("{connection_file}", connection_file) for word in argv]
            process = subprocess.Popen(argv, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
            client = BlockingKernelClient(connection_file=connection_file)
            client.load_connection_file()
            client.start_channels()
            stack.callback(client.stop_channels)
            return process, client

        yield start_


def wait_ready(client: BlockingKernelClient) -> None:
    """Wait for the first answer. `wait_for_ready` takes a kernel that has not come up yet for a dead one."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        client.kernel_info()
        with suppress(queue.Empty):
            client.get_shell_msg(timeout=1)
            # Now that it lives: until what it broadcasts arrives, too.
            client.wait_for_ready(timeout=TIMEOUT_S)
            return
    raise AssertionError("the kernel did not answer")


def run(client: BlockingKernelClient, code: str) -> tuple[str, str]:
    texts: list[str] = []
    reply = client.execute_interactive(
        code, timeout=TIMEOUT_S, output_hook=lambda m: texts.append(m["content"].get("text", ""))
    )
    return reply["content"]["status"], "".join(texts)


def test_it_runs_in_the_container_and_ends_with_the_kernel(start: Start, places: Places, tmp_path: Path) -> None:
    process, client = start({"env": {"ODD": "a,b"}})
    wait_ready(client)
    status, text = run(client, "import os; print(os.path.isdir('/.singularity.d'), os.getcwd(), os.environ['ODD'])")
    assert (status, text) == ("ok", f"True {tmp_path} a,b\n")
    client.shutdown()
    assert process.wait(20) == 0
    assert list_entries(places) == []


def test_interrupts_by_signal_and_by_message(start: Start) -> None:
    process, client = start()
    wait_ready(client)
    for way in ("signal", "message"):
        client.execute("print('begun')\n" + SLEEP)
        text = ""
        # On a busy machine the end of the line is a message of its own.
        while "begun" not in text:
            text += client.get_iopub_msg(timeout=TIMEOUT_S)["content"].get("text", "")
        if way == "signal":
            process.send_signal(signal.SIGINT)
        else:
            client.control_channel.send(client.session.msg("interrupt_request", content={}))
        reply = client.get_shell_msg(timeout=20)
        while reply["msg_type"] != "execute_reply":
            reply = client.get_shell_msg(timeout=20)
        assert reply["content"]["ename"] == "KeyboardInterrupt", way
    assert run(client, "print(1)") == ("ok", "1\n")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP], ids=["TERM", "HUP"])
def test_asked_to_end_it_leaves_nothing(start: Start, places: Places, signum: int) -> None:
    process, client = start()
    wait_ready(client)
    (entry,) = list_entries(places)
    process.send_signal(signum)
    assert process.wait(20) != 0
    assert entry.instance is not None
    assert not entry.instance.init.is_alive()
    assert list_entries(places) == []


def test_asked_to_end_while_it_starts(start: Start, places: Places) -> None:
    process, _ = start()
    while not list_entries(places) and process.poll() is None:
        pass
    process.terminate()
    process.wait(20)
    assert list_entries(places) == []


@dataclass
class Client:
    """Another process that has started the door, as VS Code does, and a connection to the kernel."""

    process: subprocess.Popen[str]
    door: ProcessIdentity
    kernel: BlockingKernelClient


@pytest.fixture
def start_client(make_kernelspec: MakeKernelspec, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    with ExitStack() as stack:

        def start_(config: dict[str, object] | None = None) -> Client:
            argv = KernelSpecManager().get_kernel_spec(make_kernelspec(config)).argv
            connection_file, _ = write_connection_file(str(tmp_path / "connection.json"))
            argv = [word.replace("{connection_file}", connection_file) for word in argv]
            script = "import json, subprocess, sys; p = subprocess.Popen(json.loads(sys.argv[1])); print(p.pid, flush=True); sys.stdin.read()"
            process = subprocess.Popen(
                [sys.executable, "-c", script, json.dumps(argv)],
                cwd=tmp_path,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(process.communicate)
            assert process.stdout is not None
            door = ProcessIdentity.find(int(process.stdout.readline()))
            assert door is not None
            kernel = BlockingKernelClient(connection_file=connection_file)
            kernel.load_connection_file()
            kernel.start_channels()
            stack.callback(kernel.stop_channels)
            wait_ready(kernel)
            return Client(process, door, kernel)

        yield start_


def test_it_ends_with_its_client(start_client: Callable[..., Client], places: Places) -> None:
    client = start_client()
    client.process.kill()
    assert client.door.wait_gone(20)
    assert list_entries(places) == []


def test_when_it_is_killed_the_kernel_ends_too(start_client: Callable[..., Client], places: Places) -> None:
    client = start_client()
    (entry,) = list_entries(places)
    client.door.send_signal(signal.SIGKILL)
    assert entry.keeper is not None
    assert entry.keeper.wait_gone(30)
    assert entry.instance is not None
    assert not entry.instance.init.is_alive()
    assert list_entries(places) == []


def test_a_persistent_kernel_outlives_its_client(start_client: Callable[..., Client], places: Places) -> None:
    client = start_client({"persist": "1h"})
    assert run(client.kernel, "x = 41") == ("ok", "")
    client.process.kill()
    assert client.door.wait_gone(20)
    assert run(client.kernel, "print(x)") == ("ok", "41\n")
    (entry,) = list_entries(places)
    assert [is_ended for _, is_ended in stop_running(places, entry.kernel_id)] == [True]
    assert entry.keeper is not None
    assert entry.keeper.wait_gone(20)
    assert list_entries(places) == []


def test_a_start_that_fails_says_why(make_kernelspec: MakeKernelspec, tmp_path: Path, places: Places) -> None:
    argv = KernelSpecManager().get_kernel_spec(make_kernelspec({"image": "/nosuch.sif"})).argv
    connection_file, _ = write_connection_file(str(tmp_path / "connection.json"))
    argv = [word.replace("{connection_file}", connection_file) for word in argv]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "/nosuch.sif" in done.stderr
    assert "Hint:" in done.stderr
    assert list_entries(places) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot read"), ("{", "is not JSON"), ("[]", "not a JSON object")],
    ids=["missing", "broken", "list"],
)
def test_a_bad_connection_file(make_kernelspec: MakeKernelspec, tmp_path: Path, content: str | None, says: str) -> None:
    folder = KernelSpecManager().get_kernel_spec(make_kernelspec()).resource_dir
    path = tmp_path / "connection.json"
    if content is not None:
        path.write_text(content)
    done = subprocess.run(
        [sys.executable, "-m", "jupyter_apptainer.launch", "--kernel", folder, "-f", path],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ,
    )
    assert done.returncode == 1
    assert says in done.stderr
    assert textwrap.shorten(str(path), 500) in done.stderr
