"""Servers that are killed: what persists is found again by the next one, and what does not is ended with nobody there."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket
from jupyter_client.blocking.client import BlockingKernelClient

from jupyter_apptainer.instances.model import LedgerEntry
from jupyter_apptainer.instances.process import ProcessIdentity
from jupyter_apptainer.places import Places
from tests.cli.conftest import run
from tests.integration.conftest import TIMEOUT_S, MakeKernelspec, list_entries
from tests.integration.server import TOKEN, Channels, Server

# The same for every user, and slow.
pytestmark = pytest.mark.user

SCHEMA = "https://events.jupyter.org/jupyter_apptainer/kernel_start/v1"


@pytest.fixture
def servers(tmp_path: Path, places: Places) -> Iterator[list[Server]]:
    """Servers of one test; those that still run are ended, and their kernels with them."""
    started: list[Server] = []
    yield started
    for server in started:
        if server.process.poll() is None:
            for model in server.ask("GET", "api/kernels")[1]:
                server.ask("DELETE", f"api/kernels/{model['id']}")
        server.end()


def start_server(servers: list[Server], root: Path) -> Server:
    servers.append(Server(root))
    return servers[-1]


def kill_server(server: Server) -> None:
    server.process.kill()
    server.wait()


def open_notebook(server: Server, name: str) -> dict[str, Any]:
    body = {"path": "book.ipynb", "name": "book.ipynb", "type": "notebook", "kernel": {"name": name}}
    status, session = server.ask("POST", "api/sessions", body)
    assert status == 201, session
    return dict(session)


def get_entry(places: Places) -> LedgerEntry:
    (entry,) = list_entries(places)
    assert entry.instance is not None
    return entry


def assert_gone(entry: LedgerEntry, places: Places) -> None:
    assert entry.instance is not None
    assert entry.instance.init.wait_gone(30)
    assert entry.keeper is not None
    assert entry.keeper.wait_gone(30)
    assert list_entries(places) == []
    assert not [folder for folder in entry.directories if Path(folder).exists()]


def test_a_persistent_kernel_is_found_by_the_next_server(
    servers: list[Server], make_kernelspec: MakeKernelspec, tmp_path: Path, places: Places
) -> None:
    name = make_kernelspec({"persist": "1h"})
    first = start_server(servers, tmp_path)
    session = open_notebook(first, name)
    kernel_id = session["kernel"]["id"]
    with Channels(first, kernel_id) as channels:
        channels.run("x = 40; import os, subprocess; child = subprocess.Popen(['sleep', '1000'])")
        os.mkfifo(tmp_path / "gate")
        channels.execute("print('begun')\nx += len(open('gate').read())")
        channels.wait_text("begun")
    entry = get_entry(places)
    # One that shall not outlive its server, and nobody else who would end it.
    first.start_kernel(make_kernelspec())
    (orphan,) = (each for each in list_entries(places) if each.name != entry.name)
    assert orphan.keeper is not None
    orphan.keeper.send_signal(signal.SIGKILL)
    kill_server(first)

    second = start_server(servers, tmp_path)
    second.wait_log(f"Ended {orphan.name}")
    second.wait_log("Attached kernel")
    (again,) = second.ask("GET", "api/sessions")[1]
    assert (again["id"], again["path"], again["kernel"]["id"]) == (session["id"], "book.ipynb", kernel_id)
    taken = get_entry(places)
    assert (taken.instance, taken.kernel, taken.orphaned_at) == (entry.instance, entry.kernel, None)
    assert taken.owner == ProcessIdentity.find(second.process.pid)
    assert again["kernel"]["execution_state"] == "busy"
    (tmp_path / "gate").write_text("1")
    while second.ask("GET", f"api/kernels/{kernel_id}")[1]["execution_state"] != "idle":
        pass
    with Channels(second, kernel_id) as channels:
        assert channels.run("x += 1; print(x, child.poll())") == ("ok", "42 None\n")
        cell = channels.execute("import time\nprint('begun')\ntime.sleep(60)")
        channels.wait_text("begun")
        assert second.ask("POST", f"api/kernels/{kernel_id}/interrupt") == (204, None)
        assert channels.finish(cell)[0] == "KeyboardInterrupt"
        assert channels.run("print(x)") == ("ok", "42\n")
    assert second.ask("POST", f"api/kernels/{kernel_id}/restart")[0] == 200
    with Channels(second, kernel_id) as channels:
        assert channels.run("print('x' in dir())") == ("ok", "False\n")
    assert get_entry(places).instance == entry.instance
    assert second.ask("DELETE", f"api/sessions/{session['id']}") == (204, None)
    assert_gone(entry, places)


def test_a_kernel_that_waits_is_listed_and_can_be_reached_and_ended(
    servers: list[Server], make_kernelspec: MakeKernelspec, tmp_path: Path, places: Places
) -> None:
    name = make_kernelspec({"persist": "1h"})
    server = start_server(servers, tmp_path)
    session = open_notebook(server, name)
    with Channels(server, session["kernel"]["id"]) as channels:
        channels.run("x = 41")
    (row,) = json.loads(run("kernel", "ps", "--json").stdout)
    entry = get_entry(places)
    assert entry.kernel is not None
    assert (row["state"], row["owner_pid"], row["lease_left_s"]) == ("running", server.process.pid, None)
    assert (row["kernel_id"], row["pid"]) == (session["kernel"]["id"], entry.kernel.pid)
    assert (row["kernelspec"], row["label"], row["persist"]) == (name, str(tmp_path / "book.ipynb"), "1h")
    assert row["memory_bytes"] > 10_000_000
    kill_server(server)
    (row,) = json.loads(run("kernel", "ps", "--json").stdout)
    assert (row["state"], row["is_owner_alive"]) == ("waiting", False)
    assert 3000 < row["lease_left_s"] <= 3600
    listed = run("kernel", "ps")
    assert "waiting" in listed.stdout
    assert f"jupyter console --existing {row['connection_file']}" in listed.stderr
    client = BlockingKernelClient(connection_file=row["connection_file"])
    client.load_connection_file()
    client.start_channels()
    client.wait_for_ready(timeout=TIMEOUT_S)
    reply = client.execute("", user_expressions={"x": "x"}, reply=True, timeout=TIMEOUT_S)
    client.stop_channels()
    assert reply["content"]["user_expressions"]["x"]["data"]["text/plain"] == "41"
    assert run("kernel", "stop", "nosuch").returncode == 1
    ended = run("kernel", "stop", "book.ipynb")
    assert (ended.returncode, ended.stdout) == (0, f"ended {row['kernel_id']} book.ipynb\n")
    assert_gone(entry, places)


def test_an_adopted_kernel_that_dies_is_started_again(
    servers: list[Server], make_kernelspec: MakeKernelspec, tmp_path: Path, places: Places
) -> None:
    first = start_server(servers, tmp_path)
    kernel_id = first.start_kernel(make_kernelspec({"persist": True}))
    kill_server(first)
    second = start_server(servers, tmp_path)
    second.wait_log("Attached kernel")
    with Channels(second, kernel_id) as channels:
        channels.execute("import os; os.kill(os.getpid(), 9)")
        assert channels.wait_state("restarting", "dead") == "restarting"
    with Channels(second, kernel_id) as channels:
        assert channels.run("print(1)") == ("ok", "1\n")


def test_a_persistent_kernel_outlives_a_server_that_ends_by_itself(
    servers: list[Server], make_kernelspec: MakeKernelspec, tmp_path: Path, places: Places
) -> None:
    name = make_kernelspec({"persist": True})
    first = start_server(servers, tmp_path)
    session = open_notebook(first, name)
    plain = first.start_kernel(make_kernelspec())
    with Channels(first, session["kernel"]["id"]) as channels:
        channels.run("x = 41")
    first.end()
    entry = get_entry(places)
    assert entry.kernel_id == session["kernel"]["id"] != plain
    second = start_server(servers, tmp_path)
    second.wait_log("Attached kernel")
    assert [again["id"] for again in second.ask("GET", "api/sessions")[1]] == [session["id"]]
    with Channels(second, session["kernel"]["id"]) as channels:
        assert channels.run("print(x)") == ("ok", "41\n")
        # Its bridge leads to the new server.
        channels.run("%load_ext jupyter_apptainer")
        assert channels.run("print(type(get_ipython().run_line_magic('apptainer', 'status')).__name__)") == (
            "ok",
            "Status\n",
        )


@pytest.mark.parametrize("persist", [False, "1s"], ids=["not", "for-a-second"])
def test_without_a_server_the_lease_ends_the_kernel(
    servers: list[Server], make_kernelspec: MakeKernelspec, tmp_path: Path, places: Places, persist: object
) -> None:
    server = start_server(servers, tmp_path)
    server.start_kernel(make_kernelspec({"persist": persist}))
    entry = get_entry(places)
    kill_server(server)
    assert_gone(entry, places)
    assert not Path(entry.connection_file).exists()


def test_a_server_of_another_folder_leaves_the_kernel_alone(
    servers: list[Server], make_kernelspec: MakeKernelspec, tmp_path: Path, places: Places
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    first = start_server(servers, tmp_path / "here")
    kernel_id = first.start_kernel(make_kernelspec({"persist": True}))
    kill_server(first)
    other = start_server(servers, tmp_path / "there")
    assert other.ask("GET", "api/kernels") == (200, [])
    assert get_entry(places).kernel_id == kernel_id
    second = start_server(servers, tmp_path / "here")
    second.wait_log("Attached kernel")


def test_the_phases_of_a_start_are_events(
    servers: list[Server], make_kernelspec: MakeKernelspec, tmp_path: Path, starter_image: Path
) -> None:
    server = start_server(servers, tmp_path)
    link = tmp_path / "image.sif"
    link.symlink_to(starter_image)
    name = make_kernelspec({"image": str(link)})
    events = websocket.create_connection(
        f"ws://{server.address}/api/events/subscribe", header=[f"Authorization: token {TOKEN}"], timeout=TIMEOUT_S
    )
    try:
        kernel_id = server.start_kernel(name)
        assert receive_phases(events, 6) == [
            (kernel_id, name, phase, status)
            for phase in ("image", "instance", "connect")
            for status in ("started", "done")
        ]
        link.unlink()
        assert server.ask("POST", "api/kernels", {"name": name})[0] == 500
        received = [receive_phase(events) for _ in range(2)]
        assert [(event["phase"], event["status"]) for event in received] == [("image", "started"), ("image", "failed")]
        assert "there is no image" in received[1]["message"]
        assert received[1]["hint"]
    finally:
        events.close()


def receive_phase(events: Any) -> dict[str, Any]:
    while (event := json.loads(events.recv()))["schema_id"] != SCHEMA:
        pass
    return dict(event)


def receive_phases(events: Any, count: int) -> list[tuple[str, str, str, str]]:
    received = [receive_phase(events) for _ in range(count)]
    return [(event["kernel_id"], event["kernel_name"], event["phase"], event["status"]) for event in received]
