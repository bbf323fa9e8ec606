"""`jupyter apptainer gpu`: by notebook, with a real kernel in a real instance, on GPUs that a stand-in shows."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from jupyter_apptainer.instances.ledger import load_entry
from jupyter_apptainer.instances.stats import iter_members
from jupyter_apptainer.places import Places
from tests.cli.conftest import PROGRAM, StartServer, run
from tests.gpu.world import GIB, World, make_card


def test_the_way_from_a_process_to_its_notebook_and_to_its_end(
    world: World, start_server: StartServer, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/ada/train.ipynb")
    server = start_server()
    entry = server.entry
    assert entry.instance is not None
    assert entry.kernel is not None
    # A loader of data: it leaves the kernel's session, so that only the namespace tells whose it is.
    cell = "import subprocess as s; p = s.Popen(['/bin/cat'], stdin=s.PIPE, start_new_session=True)"
    assert server.execute(cell) == "ok"
    (loader,) = [stat.pid for stat in iter_members(entry.instance) if stat.comm == "cat"]
    pids = (entry.kernel.pid, loader)
    world.show(make_card(0), make_card(1, processes=[[pids[0], 3 * GIB], [pids[1], GIB], [os.getpid(), GIB]]))

    report = json.loads(run("gpu", "--json").stdout)
    holders = {holder["pid"]: holder for holder in report["holders"]}
    for pid in pids:
        assert (holders[pid]["owner"], holders[pid]["label"]) == ("notebook", "/home/ada/train.ipynb")
        assert (holders[pid]["kernel_id"], holders[pid]["instance"]) == (entry.kernel_id, entry.name)
    assert holders[os.getpid()]["owner"] == "own"

    refused = run("gpu", "stop", str(loader), "--yes")
    assert refused.returncode == 1
    assert f"kernel stop {entry.kernel_id[:8]}" in refused.stderr

    server.kill()
    shown = run("gpu")
    assert f"nobody owns process {loader} any more" in shown.stdout
    asked = run("gpu", "stop", str(loader))
    assert (asked.returncode, asked.stdout) == (1, "")
    assert entry.instance.init.is_alive()
    stopped = run("gpu", "stop", str(loader), "--yes")
    assert (stopped.returncode, stopped.stdout) == (0, f"ended {loader}\n")
    assert not entry.instance.init.is_alive()
    assert load_entry(places, entry.name) is None


def test_the_table_says_what_is_not_known(world: World) -> None:
    world.show(make_card(0, utilisation=43, memory=[12 * GIB, 40 * GIB]), make_card(1, utilisation=None, power_mw=None))
    first, second = run("gpu").stdout.splitlines()[1:]
    assert first.split()[:6] == ["0", "43", "%", "12.0", "of", "40.0"]
    assert second.split()[:2] == ["1", "n/a"]
    assert " n/a " in second


def test_devices_of_others_are_shown_on_demand(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.show(*(make_card(index) for index in range(4)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    done = run("gpu")
    assert [line[0] for line in done.stdout.splitlines()[1:]] == ["2"]
    assert "3 more" in done.stderr
    assert [line[0] for line in run("gpu", "--all").stdout.splitlines()[1:]] == list("0123")


def test_without_a_gpu_it_says_why_and_is_no_failure(world: World) -> None:
    world.show(error=9)
    done = run("gpu")
    assert (done.returncode, done.stdout) == (0, "")
    assert "driver is not loaded" in done.stderr
    assert "Hint: sudo modprobe nvidia" in done.stderr


def test_watching_shows_changes_until_it_is_interrupted(world: World) -> None:
    world.show(make_card(0, utilisation=1))
    command = [str(PROGRAM), "gpu", "--watch", "0.1", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["devices"][0]["utilisation_percent"] == 1
        world.show(make_card(0, utilisation=2))
        while json.loads(process.stdout.readline())["devices"][0]["utilisation_percent"] != 2:
            pass
        process.send_signal(2)
        process.stdout.read()
    assert process.returncode == 0


@pytest.mark.parametrize(
    "words", [["--watch", "0"], ["--watch", "often"], ["stop"], ["stop", "me"], ["start"]], ids=" ".join
)
def test_a_wrong_command_line_is_usage(words: list[str]) -> None:
    done = run("gpu", *words)
    assert done.returncode == 2
    assert "usage: " in done.stderr
