"""`jupyter apptainer gc`: what a killed server leaves behind is found, shown and ended."""

from __future__ import annotations

import json
from pathlib import Path

from jupyter_apptainer.instances.janitor import iter_helpers
from jupyter_apptainer.instances.ledger import iter_entries
from jupyter_apptainer.places import Places
from tests import world
from tests.cli.conftest import Server, StartServer, run


def test_without_leftovers_there_is_nothing_to_do() -> None:
    done = run("gc")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "nothing to do\n")
    assert json.loads(run("gc", "--json").stdout) == []


def test_a_kernel_whose_server_lives_is_left_alone(server: Server) -> None:
    done = run("gc")
    assert (done.returncode, done.stderr) == (0, "nothing to do\n")
    assert server.entry.instance is not None
    assert server.entry.instance.init.is_alive()
    assert server.execute("pass") == "ok"


def test_a_dry_run_changes_nothing(server: Server, places: Places) -> None:
    server.kill()
    entry = server.entry
    assert entry.instance is not None
    files = world.list_files(places.runtime, places.scratch, places.ledger)
    done = run("gc", "--dry-run")
    assert done.returncode == 0
    assert done.stdout.startswith(
        f"would end {entry.name} ({entry.image}): its owner (pid {server.process.pid}) is gone"
    )
    assert str(entry.instance.init.pid) in done.stdout
    (row,) = json.loads(run("gc", "-n", "--json").stdout)
    assert row["ended"] is None
    assert entry.instance.init.is_alive()
    assert list(iter_entries(places)) == [entry]
    assert world.list_files(places.runtime, places.scratch, places.ledger) == files


def test_what_a_killed_server_left_is_ended(server: Server, places: Places) -> None:
    server.kill()
    entry = server.entry
    assert entry.instance is not None
    assert entry.connection_file
    assert Path(entry.connection_file).exists()
    done = run("gc")
    assert done.returncode == 0
    assert done.stdout.startswith(f"ended {entry.name} ")
    assert not entry.instance.init.is_alive()
    assert not entry.instance.starter.is_alive()
    assert list(iter_helpers(entry.instance)) == []
    assert list(iter_entries(places)) == []
    assert not any(Path(folder).exists() for folder in entry.directories)
    assert not Path(entry.connection_file).exists()
    assert not Path(entry.instance.record_path).exists()
    assert run("gc").stderr == "nothing to do\n"


def test_json_tells_what_was_ended(server: Server) -> None:
    server.kill()
    done = run("gc", "--json")
    assert done.returncode == 0
    (row,) = json.loads(done.stdout)
    entry = server.entry
    assert entry.instance is not None
    assert (row["name"], row["image"], row["label"]) == (entry.name, entry.image, entry.label)
    assert row["ended"] is True
    assert entry.instance.init.pid in row["processes"]
    assert row["directories"] == list(entry.directories)


def test_of_two_only_the_orphan_is_ended(start_server: StartServer, places: Places) -> None:
    orphan, living = start_server(), start_server()
    orphan.kill()
    assert run("gc").returncode == 0
    assert [entry.name for entry in iter_entries(places)] == [living.entry.name]
    assert living.execute("pass") == "ok"


def test_a_wrong_option_is_usage() -> None:
    assert run("gc", "--force").returncode == 2
