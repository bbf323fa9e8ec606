"""What JupyterLab and every other front end sends to a Jupyter server, over REST and websocket."""

from __future__ import annotations

import os
import signal
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jupyter_apptainer.instances.model import Instance, LedgerEntry
from jupyter_apptainer.places import Places
from tests.integration.conftest import SLEEP, MakeKernelspec, list_entries
from tests.integration.server import Channels, Server


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the servers show."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(root: Path, places: Places) -> Iterator[Server]:
    """One server for all tests that do not end it."""
    server = Server(root)
    yield server
    server.end()


@pytest.fixture(autouse=True)
def no_kernel_stays(request: pytest.FixtureRequest, places: Places) -> Iterator[None]:
    """A test that fails leaves its kernels to the shared server; they go before the next test."""
    yield
    if "server" in request.fixturenames:
        server: Server = request.getfixturevalue("server")
        for model in server.ask("GET", "api/kernels")[1]:
            server.ask("DELETE", f"api/kernels/{model['id']}")
    assert list_entries(places) == []


@pytest.fixture
def kernel_id(server: Server, starter_kernel: str) -> str:
    """A kernel that was started over REST."""
    return server.start_kernel(starter_kernel)


def get_entry(places: Places, kernel_id: str) -> LedgerEntry:
    (entry,) = [entry for entry in list_entries(places) if entry.kernel_id == kernel_id]
    return entry


def get_instance(places: Places, kernel_id: str) -> Instance:
    instance = get_entry(places, kernel_id).instance
    assert instance is not None
    return instance


def test_execute_interrupt_restart_delete(server: Server, kernel_id: str, places: Places) -> None:
    instance = get_instance(places, kernel_id)
    with Channels(server, kernel_id) as channels:
        assert channels.run("import os; kept = 1; print(os.path.isdir('/.singularity.d'))") == ("ok", "True\n")
        cell = channels.execute("print('begun')\n" + SLEEP)
        channels.wait_text("begun")
        assert server.ask("POST", f"api/kernels/{kernel_id}/interrupt") == (204, None)
        assert channels.finish(cell)[0] == "KeyboardInterrupt"
        assert channels.run("print(kept)") == ("ok", "1\n")
    status, model = server.ask("POST", f"api/kernels/{kernel_id}/restart")
    assert (status, model["id"]) == (200, kernel_id)
    # Front ends open a new websocket after a restart: the server connects to the kernel anew for that alone.
    with Channels(server, kernel_id) as channels:
        assert channels.run("print('kept' in dir())") == ("ok", "False\n")
    assert get_instance(places, kernel_id) == instance
    assert server.ask("DELETE", f"api/kernels/{kernel_id}") == (204, None)
    assert not instance.init.is_alive()
    assert list_entries(places) == []


def test_restart_of_a_busy_kernel(server: Server, kernel_id: str) -> None:
    with Channels(server, kernel_id) as channels:
        channels.execute("import time\nprint('begun')\nwhile True: time.sleep(1)")
        channels.wait_text("begun")
        assert server.ask("POST", f"api/kernels/{kernel_id}/restart")[0] == 200
    with Channels(server, kernel_id) as channels:
        assert channels.run("print(1)") == ("ok", "1\n")


def test_a_session_runs_in_its_notebooks_folder_and_under_its_name(
    server: Server, root: Path, starter_kernel: str, places: Places
) -> None:
    (root / "Übung 1").mkdir()
    body = {"path": "Übung 1/book.ipynb", "name": "book.ipynb", "type": "notebook", "kernel": {"name": starter_kernel}}
    status, session = server.ask("POST", "api/sessions", body)
    assert status == 201, session
    kernel_id = session["kernel"]["id"]
    assert get_entry(places, kernel_id).label == str(root / "Übung 1/book.ipynb")
    with Channels(server, kernel_id) as channels:
        assert channels.run("import os; print(os.getcwd())") == ("ok", f"{root}/Übung 1\n")
    assert server.ask("DELETE", f"api/sessions/{session['id']}") == (204, None)
    assert list_entries(places) == []


def test_another_kernel_for_an_open_notebook(server: Server, starter_kernel: str, places: Places) -> None:
    body = {"path": "book.ipynb", "name": "book.ipynb", "type": "notebook", "kernel": {"name": starter_kernel}}
    session = server.ask("POST", "api/sessions", body)[1]
    before = get_entry(places, session["kernel"]["id"])
    status, session = server.ask("PATCH", f"api/sessions/{session['id']}", {"kernel": {"name": starter_kernel}})
    assert status == 200, session
    (entry,) = list_entries(places)
    assert entry.kernel_id == session["kernel"]["id"] != before.kernel_id


def test_two_kernels_start_at_once_and_know_nothing_of_each_other(server: Server, starter_kernel: str) -> None:
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(server.start_kernel, [starter_kernel] * 2)
    with Channels(server, first) as one, Channels(server, second) as two:
        one.run("open('/tmp/mine', 'w').close()")
        assert two.run("import os; print(os.path.exists('/tmp/mine'))") == ("ok", "False\n")
        cell = one.execute("print('begun')\n" + SLEEP)
        one.wait_text("begun")
        assert two.run("print(2)") == ("ok", "2\n")
        server.ask("POST", f"api/kernels/{first}/interrupt")
        assert one.finish(cell)[0] == "KeyboardInterrupt"


def test_two_clients_of_one_kernel_share_its_state(server: Server, kernel_id: str) -> None:
    with Channels(server, kernel_id) as one, Channels(server, kernel_id) as two:
        one.run("shared = 5")
        assert two.run("print(shared)") == ("ok", "5\n")


def test_a_client_that_comes_back_gets_what_it_missed(server: Server, kernel_id: str, root: Path) -> None:
    os.mkfifo(root / "gate")
    with Channels(server, kernel_id) as channels:
        channels.execute("print('begun')\nprint(open('gate').read())")
        channels.wait_text("begun")
    while server.ask("GET", f"api/kernels/{kernel_id}")[1]["connections"]:
        pass
    (root / "gate").write_text("missed")
    with Channels(server, kernel_id, channels.session) as again:
        again.wait_text("missed")


def test_the_launcher_shows_name_and_logo(server: Server, starter_kernel: str) -> None:
    spec = server.ask("GET", "api/kernelspecs")[1]["kernelspecs"][starter_kernel]
    assert "Python" in spec["spec"]["display_name"]
    assert {"logo-64x64", "logo-svg"} <= set(spec["resources"])
    for path in spec["resources"].values():
        with server.open("GET", path.lstrip("/")) as response:
            assert response.headers["Content-Type"] in ("image/png", "image/svg+xml")


def test_a_click_in_a_traceback_opens_the_file(server: Server, kernel_id: str, root: Path) -> None:
    (root / "module.py").touch()
    status, found = server.ask("GET", f"api/resolvePath?path=module.py&kernel={kernel_id}")
    assert status == 200
    assert {"scope": "kernel", "path": str(root / "module.py")} in found["resolved"]


# --- a kernel that dies, or does not start


@pytest.mark.parametrize("is_fresh", [True, False], ids=["at-once", "later"])
def test_a_kernel_that_dies_is_started_again(server: Server, kernel_id: str, places: Places, is_fresh: bool) -> None:
    entry = get_entry(places, kernel_id)
    with Channels(server, kernel_id) as channels:
        if not is_fresh:
            assert channels.run("kept = 1") == ("ok", "")
        channels.execute("import os; os.kill(os.getpid(), 9)")
        assert channels.wait_state("restarting", "dead") == "restarting"
    with Channels(server, kernel_id) as channels:
        assert channels.run("print('kept' in dir())") == ("ok", "False\n")
    assert get_entry(places, kernel_id).instance == entry.instance


def test_a_container_that_dies_is_started_again(server: Server, kernel_id: str, places: Places) -> None:
    instance = get_instance(places, kernel_id)
    with Channels(server, kernel_id) as channels:
        os.kill(instance.init.pid, signal.SIGKILL)
        assert channels.wait_state("restarting", "dead") == "restarting"
    with Channels(server, kernel_id) as channels:
        assert channels.run("print(1)") == ("ok", "1\n")
    assert get_instance(places, kernel_id).init != instance.init


def test_a_kernel_that_cannot_come_back_is_dead(
    server: Server, make_kernelspec: MakeKernelspec, starter_image: Path, tmp_path: Path, places: Places
) -> None:
    image = tmp_path / "image.sif"
    image.symlink_to(starter_image)
    name = make_kernelspec({"image": str(image)})
    kernel_id = server.start_kernel(name)
    with Channels(server, kernel_id) as channels:
        image.unlink()
        os.kill(get_instance(places, kernel_id).init.pid, signal.SIGKILL)
        assert channels.wait_state("dead") == "dead"
    assert server.ask("GET", "api/kernels") == (200, [])
    assert list_entries(places) == []
    server.wait_log("Hint: check the path")


@pytest.mark.parametrize("folder", ["plain", "100%"])
@pytest.mark.parametrize("door", ["sessions", "kernels"])
def test_a_start_that_fails_says_why_in_the_dialog(
    server: Server, make_kernelspec: MakeKernelspec, tmp_path: Path, door: str, folder: str
) -> None:
    (tmp_path / folder).mkdir()
    image = f"{tmp_path}/{folder}/nosuch.sif"
    name = make_kernelspec({"image": image})
    body = {"name": name, "path": "x.ipynb", "type": "notebook", "kernel": {"name": name}}
    status, answer = server.ask("POST", f"api/{door}", body if door == "sessions" else {"name": name})
    assert status == 500
    shown = image.replace("%", " percent")
    assert answer["message"] == f"there is no image {shown}\nHint: check the path, or fetch the image first"
    assert server.ask("GET", "api/kernels") == (200, [])


def test_a_switch_to_a_kernel_that_does_not_start(
    server: Server, starter_kernel: str, make_kernelspec: MakeKernelspec
) -> None:
    body = {"path": "book.ipynb", "name": "book.ipynb", "type": "notebook", "kernel": {"name": starter_kernel}}
    session = server.ask("POST", "api/sessions", body)[1]
    name = make_kernelspec({"image": "/nosuch.sif"})
    status, answer = server.ask("PATCH", f"api/sessions/{session['id']}", {"kernel": {"name": name}})
    assert status == 501
    assert "there is no image /nosuch.sif" in answer["message"]
    with Channels(server, session["kernel"]["id"]) as channels:
        assert channels.run("print('still here')") == ("ok", "still here\n")


# --- the end of the server


def end_over_rest(server: Server) -> None:
    assert server.ask("POST", "api/shutdown")[0] == 200


def end_by_term(server: Server) -> None:
    server.process.terminate()


def end_by_ctrl_c(server: Server) -> None:
    """A terminal sends its interrupt to the whole process group."""
    os.killpg(server.process.pid, signal.SIGINT)


@pytest.mark.parametrize("end", [end_over_rest, end_by_term, end_by_ctrl_c], ids=["rest", "term", "ctrl-c"])
def test_a_server_that_ends_takes_its_kernels_along(
    root: Path, starter_kernel: str, places: Places, end: Callable[[Server], None], request: pytest.FixtureRequest
) -> None:
    server = Server(root)
    request.addfinalizer(server.end)
    ids = [server.start_kernel(starter_kernel) for _ in range(2)]
    with Channels(server, ids[0]) as channels:
        channels.execute("import time\nprint('begun')\nwhile True: time.sleep(1)")
        channels.wait_text("begun")
        instances = [entry.instance for entry in list_entries(places)]
        assert len(instances) == 2
        end(server)
        assert server.wait() == 0, "".join(server.log)
    assert not any(instance and instance.init.is_alive() for instance in instances)
    assert list_entries(places) == []


def test_a_kernel_that_the_command_line_stops_is_not_started_anew(
    server: Server, kernel_id: str, places: Places
) -> None:
    program = Path(sysconfig.get_path("scripts")) / "jupyter-apptainer"
    done = subprocess.run([program, "kernel", "stop", kernel_id], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"ended {kernel_id}")
    # The server has forgotten it by then: there is nothing that it could start again.
    assert server.ask("GET", f"api/kernels/{kernel_id}")[0] == 404
    assert list_entries(places) == []
