"""Whose a process is, by real processes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from jupyter_apptainer.errors import ProcessNotOrphaned
from jupyter_apptainer.gpu import read_gpus
from jupyter_apptainer.gpu.orphans import find_orphan, stop_orphan
from jupyter_apptainer.gpu.owners import OwnerFinder, Ownership
from jupyter_apptainer.gpu.process import read_facts
from jupyter_apptainer.places import Places
from tests.gpu.world import GIB, World, make_card

# Says that it is ready, and then ends when its standard input does; `trap` where it must not end when it is asked to.
_SCRIPT = "echo; read line"
StartProgram = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[StartProgram]:
    """Start programs with variables of their own."""
    started: list[subprocess.Popen[str]] = []

    def run(script: str = _SCRIPT, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["/bin/sh", "-c", script],
            env={"PATH": os.environ["PATH"], **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def gone_pid(start: StartProgram) -> int:
    """The pid of a process that has ended."""
    process = start("echo")
    process.wait()
    return process.pid


def find(places: Places, pid: int) -> Ownership:
    return OwnerFinder(places).find([pid])[pid]


def test_a_kernel_on_the_host_is_known_by_its_notebook(places: Places, start: StartProgram) -> None:
    process = start(JPY_SESSION_NAME="/home/ada/train.ipynb", JPY_PARENT_PID=str(os.getpid()))
    found = find(places, process.pid)
    assert (found.owner, found.label, found.reason) == ("notebook", "/home/ada/train.ipynb", "")


def test_what_a_server_that_is_gone_has_left_is_an_orphan(places: Places, start: StartProgram, gone_pid: int) -> None:
    process = start(JPY_SESSION_NAME="/home/ada/train.ipynb", JPY_PARENT_PID=str(gone_pid))
    found = find(places, process.pid)
    assert (found.owner, found.label) == ("orphan", "/home/ada/train.ipynb")
    assert str(gone_pid) in found.reason


def test_a_younger_process_with_the_servers_number_is_not_the_server(places: Places, start: StartProgram) -> None:
    facts = read_facts(start(JPY_PARENT_PID=str(os.getpid())).pid)
    assert facts.identity is not None
    # As if the process had been there before its server: since the machine's start.
    older = replace(facts, identity=replace(facts.identity, start_ticks=1))
    from jupyter_apptainer.gpu.owners import judge

    assert judge(facts, ()).owner == "notebook"
    assert judge(older, ()).owner == "orphan"


@pytest.mark.parametrize(
    ("variables", "owner", "label"),
    [
        pytest.param({"APPTAINER_INSTANCE": "train"}, "instance", "train", id="instance"),
        pytest.param({"SINGULARITY_INSTANCE": "old"}, "instance", "old", id="older engine"),
        pytest.param({}, "own", f"sh -c {_SCRIPT}", id="program"),
    ],
)
def test_what_is_no_notebooks_has_a_name_all_the_same(
    places: Places, start: StartProgram, variables: dict[str, str], owner: str, label: str
) -> None:
    found = find(places, start(**variables).pid)
    assert (found.owner, found.label) == (owner, label)


def test_a_pid_that_was_given_away_again_is_looked_at_anew(places: Places, start: StartProgram) -> None:
    finder = OwnerFinder(places)
    process = start(APPTAINER_INSTANCE="train")
    assert finder.find([process.pid])[process.pid].label == "train"
    finder._known[process.pid] = replace(finder._known[process.pid], instance="stale", identity=None)
    assert finder.find([process.pid])[process.pid].label == "train"


def test_only_an_orphan_is_stopped(world: World, places: Places, start: StartProgram, gone_pid: int) -> None:
    orphan = start(JPY_PARENT_PID=str(gone_pid))
    kernel = start(JPY_SESSION_NAME="a.ipynb", JPY_PARENT_PID=str(os.getpid()))
    instance = start(APPTAINER_INSTANCE="train")
    pids = [process.pid for process in (orphan, kernel, instance)]
    world.show(make_card(0, processes=[[pid, GIB] for pid in pids]))
    report = read_gpus(places)
    for pid, hint in ((kernel.pid, "shut"), (instance.pid, "instance stop train"), (1 << 22, "jupyter apptainer gpu")):
        with pytest.raises(ProcessNotOrphaned, match=hint):
            find_orphan(report, pid)
    holder = find_orphan(report, orphan.pid)
    identity = read_facts(orphan.pid).identity
    assert stop_orphan(places, holder, identity)
    assert orphan.wait() == -signal.SIGTERM
    assert (kernel.poll(), instance.poll()) == (None, None)
    # What has ended already is no failure.
    assert stop_orphan(places, holder, identity)


def test_an_orphan_that_does_not_listen_is_killed(
    places: Places, world: World, start: StartProgram, gone_pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jupyter_apptainer.gpu import orphans

    monkeypatch.setattr(orphans, "_TERM_TIMEOUT_S", 0.2)
    process = start("trap '' TERM; echo; while read line; do :; done", JPY_PARENT_PID=str(gone_pid))
    world.show(make_card(0, processes=[[process.pid, GIB]]))
    assert stop_orphan(places, find_orphan(read_gpus(places), process.pid))
    assert process.wait() == -signal.SIGKILL
