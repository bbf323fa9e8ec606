"""`jupyter apptainer instance`, for kernels that a server in another process has started."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from jupyter_apptainer.instances.ledger import load_entry
from jupyter_apptainer.places import Places
from tests.cli.conftest import Server, StartServer, run

# The same for every user, and slow.
pytestmark = pytest.mark.user


def list_rows() -> list[dict[str, object]]:
    done = run("instance", "list", "--json")
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, object]] = json.loads(done.stdout)
    return rows


def test_without_instances_the_list_is_empty() -> None:
    assert list_rows() == []
    done = run("instance", "list")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no instances\n")


def test_a_row_tells_all_about_a_running_kernel(server: Server, starter_image: Path) -> None:
    (row,) = list_rows()
    assert row["name"] == server.entry.name
    assert row["state"] == "running"
    assert row["image"] == str(starter_image)
    assert row["owner_pid"] == server.process.pid
    assert row["kernel_id"] == server.entry.kernel_id
    assert isinstance(row["init_pid"], int)
    assert os.path.exists(f"/proc/{row['init_pid']}")
    assert row["processes"] == 3, "init, the fork server and the kernel"
    assert isinstance(row["memory_bytes"], int)
    assert row["memory_bytes"] > 10 * 1024 * 1024
    assert isinstance(row["cpu_s"], float)
    assert row["overlays"] == []


def test_the_table_has_one_line_for_each(server: Server, starter_image: Path) -> None:
    done = run("instance", "list")
    (line,) = done.stdout.splitlines()
    assert server.entry.name in line
    assert "running" in line
    assert "MiB" in line
    assert str(starter_image) in line


def test_an_instance_without_its_server_is_an_orphan(server: Server) -> None:
    server.kill()
    (row,) = list_rows()
    assert row["state"] == "orphaned"


def test_a_dead_instance_is_shown_as_dead(server: Server) -> None:
    assert server.entry.instance is not None
    init = server.entry.instance.init
    assert init.send_signal(9)
    assert init.wait_gone(10)
    (row,) = list_rows()
    assert row["state"] == "dead"
    assert (row["processes"], row["memory_bytes"]) == (0, 0)


def test_logs_show_what_the_kernel_printed_outside_of_cells(server: Server) -> None:
    server.execute("import os; os.write(2, b'straight to the log\\n')")
    done = run("instance", "logs", server.entry.name)
    assert done.returncode == 0
    assert "straight to the log" in done.stdout
    assert "==> " in done.stdout
    assert "kernel.log <==" in done.stdout


@pytest.mark.parametrize("verb", ["stop", "logs"])
@pytest.mark.parametrize("pattern", ["jpa-nobody", "*", "other-*"])
def test_a_name_that_fits_nothing_is_an_error(verb: str, pattern: str) -> None:
    done = run("instance", verb, pattern)
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"no instance of ours is named {pattern!r}" in done.stderr
    assert "Hint: " in done.stderr


@pytest.mark.parametrize("words", [[], ["stop"], ["logs"], ["frobnicate"], ["list", "extra"]])
def test_a_wrong_command_line_is_usage(words: list[str]) -> None:
    done = run("instance", *words)
    assert done.returncode == 2
    assert "usage: " in done.stderr


def test_stop_by_pattern_ends_those_that_match_and_no_other(start_server: StartServer, places: Places) -> None:
    first, second = start_server(), start_server()
    done = run("instance", "stop", first.entry.name[:-2] + "*")
    assert (done.returncode, done.stdout) == (0, f"ended {first.entry.name}\n")
    assert first.entry.instance is not None
    assert second.entry.instance is not None
    assert not first.entry.instance.init.is_alive()
    assert second.entry.instance.init.is_alive()
    assert load_entry(places, first.entry.name) is None
    assert not any(Path(folder).exists() for folder in first.entry.directories)
    assert [row["name"] for row in list_rows()] == [second.entry.name]


def test_stop_ends_several(start_server: StartServer) -> None:
    names = {start_server().entry.name, start_server().entry.name}
    done = run("instance", "stop", "jpa-*")
    assert done.returncode == 0
    assert set(done.stdout.splitlines()) == {f"ended {name}" for name in names}
    assert list_rows() == []


def test_a_name_that_two_patterns_fit_is_ended_once(server: Server) -> None:
    done = run("instance", "stop", server.entry.name, "jpa-*")
    assert (done.returncode, done.stdout) == (0, f"ended {server.entry.name}\n")


def test_with_a_wrong_name_none_is_ended(server: Server) -> None:
    done = run("instance", "stop", server.entry.name, "jpa-nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert server.execute("pass") == "ok"
