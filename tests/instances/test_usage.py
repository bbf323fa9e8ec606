"""What the processes of a container use, with this process, and all beside it, in the place of a container."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from jupyter_apptainer.instances.process import ProcessIdentity, read_children
from jupyter_apptainer.instances.usage import ContainerProcesses, count_tasks_outside, read_inner_pid


@pytest.fixture
def start_python() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start Python programs that print a line when they are ready; they end with the test."""
    running: list[subprocess.Popen[str]] = []

    def start(code: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", f"{code}\nprint('ready', flush=True)\ninput()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_usage_counts_what_was_filled_and_shared_pages_once(
    start_python: Callable[[str], subprocess.Popen[str]],
) -> None:
    filled = start_python("import mmap, os\ndata = b'x' * (64 << 20)\nempty = mmap.mmap(-1, 1 << 30)")
    processes = ContainerProcesses(ProcessIdentity.current())
    (member,) = (member for member in processes.read() if member.pid == filled.pid)
    assert member.tasks == 1
    assert 64 << 20 <= member.memory_bytes < 128 << 20, "reserved is not used"
    forked = start_python("import os\ndata = b'x' * (64 << 20)\nfor _ in range(3):\n  if not os.fork(): os.read(0, 1)")
    pids = {forked.pid, *read_children(forked.pid)}
    exact = sum(member.memory_bytes for member in processes.read_exactly() if member.pid in pids)
    bound = sum(member.memory_bytes for member in processes.read() if member.pid in pids)
    assert len(pids) == 4
    assert 64 << 20 <= exact < 128 << 20
    assert bound >= 256 << 20


def test_a_process_is_ended_by_its_pid_once(start_python: Callable[[str], subprocess.Popen[str]]) -> None:
    process = start_python("")
    processes = ContainerProcesses(ProcessIdentity.current())
    assert processes.kill(process.pid)
    assert process.wait(5) == -9
    assert not processes.kill(process.pid)


def test_of_a_container_that_is_gone_nothing_is_read(start_python: Callable[[str], subprocess.Popen[str]]) -> None:
    process = start_python("")
    identity = ProcessIdentity.find(process.pid)
    assert identity is not None
    process.kill()
    process.wait()
    assert ContainerProcesses(identity).read() == ()
    assert read_inner_pid(identity) is None


def test_tasks_of_the_engine_are_those_outside_the_pid_namespace() -> None:
    assert read_inner_pid(ProcessIdentity.current()) == os.getpid()
    assert count_tasks_outside(ProcessIdentity.current()) == 0
