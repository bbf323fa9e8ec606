"""Processes as /proc shows them, with real children: identity, zombies, waiting, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_apptainer.instances.process import (
    ProcessIdentity,
    iter_stats,
    read_children,
    read_command_line,
    read_cpu_seconds,
    read_memory,
    read_namespace,
    read_stat,
)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A child that sleeps in a session of its own."""
    process = subprocess.Popen(["sleep", "300"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def identify(pid: int) -> ProcessIdentity:
    found = ProcessIdentity.find(pid)
    assert found is not None
    return found


def make_zombie(process: subprocess.Popen[bytes]) -> ProcessIdentity:
    """End a child without taking its exit status."""
    identity = identify(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    return identity


@pytest.fixture(params=["pidfd", "before-linux-5.3"])
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "pidfd":
        monkeypatch.delattr(os, "pidfd_open")
        monkeypatch.delattr(signal, "pidfd_send_signal")


both_kernels = pytest.mark.usefixtures("_kernel")


def test_this_process_is_alive_and_known() -> None:
    own = ProcessIdentity.current()
    assert own.pid == os.getpid()
    assert own.is_alive()
    assert own in {ProcessIdentity(stat.pid, stat.start_ticks) for stat in iter_stats()}


def test_a_stat_tells_parent_session_and_name(child: subprocess.Popen[bytes]) -> None:
    stat = read_stat(child.pid)
    assert stat is not None
    assert (stat.pid, stat.ppid, stat.session, stat.pgid) == (child.pid, os.getpid(), child.pid, child.pid)
    assert stat.state in "SRD"


@pytest.mark.parametrize("name", ["a) b (c", "x y", ")", "1 2 3 4"])
def test_a_name_with_parentheses_and_spaces_does_not_shift_the_fields(name: str) -> None:
    code = "import sys, pathlib; pathlib.Path('/proc/self/comm').write_text(sys.argv[1]); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code, name], stdin=-1, stdout=-1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        stat = read_stat(process.pid)
        process.communicate(b"\n")
    assert stat is not None
    assert (stat.comm, stat.ppid) == (name, os.getpid())


@both_kernels
def test_a_zombie_counts_as_gone(child: subprocess.Popen[bytes]) -> None:
    identity = make_zombie(child)
    stat = read_stat(child.pid)
    assert stat is not None
    assert stat.state == "Z"
    assert not identity.is_alive()
    assert identity.wait_gone(0)
    assert not identity.send_signal(signal.SIGTERM)


@both_kernels
def test_a_reaped_process_is_gone(child: subprocess.Popen[bytes]) -> None:
    identity = identify(child.pid)
    child.kill()
    child.wait()
    assert not identity.is_alive()
    assert identity.wait_gone(0)
    assert not identity.send_signal(signal.SIGTERM)
    assert ProcessIdentity.find(child.pid) != identity


@both_kernels
def test_a_later_process_with_the_same_pid_is_somebody_else(child: subprocess.Popen[bytes]) -> None:
    now = identify(child.pid)
    before = ProcessIdentity(now.pid, now.start_ticks - 1)
    assert before != now
    assert not before.is_alive()
    assert before.wait_gone(0)
    assert not before.send_signal(signal.SIGKILL)
    assert now.is_alive()


@both_kernels
def test_a_signal_reaches_exactly_the_process(child: subprocess.Popen[bytes]) -> None:
    assert identify(child.pid).send_signal(signal.SIGTERM)
    assert child.wait(10) == -signal.SIGTERM


@both_kernels
def test_waiting_ends_with_the_process(child: subprocess.Popen[bytes]) -> None:
    identity = identify(child.pid)
    assert not identity.wait_gone(0.05)
    timer = threading.Timer(0.1, child.kill)
    timer.start()
    started = time.monotonic()
    assert identity.wait_gone(10)
    assert time.monotonic() - started < 5
    timer.join()


def test_an_identity_survives_json(child: subprocess.Popen[bytes]) -> None:
    identity = identify(child.pid)
    assert ProcessIdentity.from_json(identity.to_json()) == identity


def test_children_are_those_of_all_threads() -> None:
    pids: list[int] = []
    processes: list[subprocess.Popen[bytes]] = []
    done = threading.Event()

    def start() -> None:
        processes.append(subprocess.Popen(["sleep", "300"]))
        pids.append(processes[-1].pid)
        started.set()
        done.wait()

    started = threading.Event()
    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    started.wait()
    processes.append(subprocess.Popen(["sleep", "300"]))
    try:
        assert set(read_children(os.getpid())) >= {process.pid for process in processes}
        assert read_children(processes[0].pid) == []
    finally:
        done.set()
        thread.join()
        for process in processes:
            process.kill()
            process.wait()


def test_what_else_proc_tells(child: subprocess.Popen[bytes]) -> None:
    assert read_command_line(os.getpid()).split()[0] == Path("/proc/self/cmdline").read_bytes().split(b"\0")[0].decode()
    assert read_namespace(child.pid, "pid") == os.stat("/proc/self/ns/pid").st_ino
    memory = read_memory(os.getpid())
    assert memory is not None
    assert memory > 1_000_000
    assert read_cpu_seconds(os.getpid()) > 0


def test_of_the_gone_nothing_is_told(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    pid = child.pid
    assert (read_stat(pid), read_children(pid), read_command_line(pid)) == (None, [], "")
    assert (read_memory(pid), read_cpu_seconds(pid), read_namespace(pid, "mnt")) == (None, 0.0, None)
