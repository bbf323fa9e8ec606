"""A real Jupyter server on loopback: what JupyterLab and every other front end sends to it, over REST and websocket."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import websocket

from jupyter_apptainer.instances.model import Instance, LedgerEntry
from jupyter_apptainer.places import Places
from tests.integration.conftest import TIMEOUT_S, MakeKernelspec, list_entries

TOKEN = "loopback"
Message = dict[str, Any]


class Server:
    """`jupyter server` in a process of its own. Ended by `end`, if nothing else has."""

    def __init__(self, root: Path, *options: str) -> None:
        self.log: list[str] = []
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyter_server",
                "--no-browser",
                "--allow-root",
                "--ServerApp.port=0",
                "--IOLoopKernelRestarter.time_to_dead=0.3",
                "--ServerApp.answer_yes=True",
                *options,
            ],
            cwd=root,
            env=os.environ | {"JUPYTER_TOKEN": TOKEN},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        self._is_ready = threading.Event()
        self._reader = threading.Thread(target=self._read, name="server-log")
        self._reader.start()
        self.address = ""
        assert self._is_ready.wait(TIMEOUT_S)
        port = next(found[1] for line in self.log if (found := re.search(r"http://127\.0\.0\.1:(\d+)/", line)))
        self.address = f"127.0.0.1:{port}"
        self._wait_listening(int(port))

    def _wait_listening(self, port: int) -> None:
        """Nothing tells when a port begins to listen; the server speaks of it a little earlier."""
        while self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except ConnectionRefusedError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError("".join(self.log))

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if "http://127.0.0.1:" in line:
                self._is_ready.set()
        self._is_ready.set()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.wait()

    def wait(self) -> int:
        """Wait for the server's end; returns its status."""
        status = self.process.wait(30)
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return status

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Send a request; returns the status and the decoded answer."""
        request = urllib.request.Request(
            f"http://{self.address}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {TOKEN}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                status, content = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        return status, json.loads(content) if content else None

    def start_kernel(self, name: str) -> str:
        """Start a kernel; returns its id."""
        status, model = self.ask("POST", "api/kernels", {"name": name})
        assert status == 201, model
        return str(model["id"])


@dataclass
class Channels:
    """A kernel's websocket, as a front end holds it."""

    server: Server
    kernel_id: str
    session: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        self._socket = websocket.create_connection(
            f"ws://{self.server.address}/api/kernels/{self.kernel_id}/channels?session_id={self.session}",
            header=[f"Authorization: token {TOKEN}"],
            timeout=TIMEOUT_S,
        )

    def __enter__(self) -> Channels:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def execute(self, code: str) -> str:
        """Send a cell; returns the message's id."""
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": "execute_request",
            "session": self.session,
            "username": "",
            "version": "5.4",
            "date": "2026-01-01T00:00:00Z",
        }
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        message = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}
        self._socket.send(json.dumps(message))
        return header["msg_id"]

    def receive(self) -> Message:
        message: Message = json.loads(self._socket.recv())
        return message

    def wait_text(self, text: str) -> None:
        while text not in (self.receive()["content"].get("text") or ""):
            pass

    def wait_state(self, *states: str) -> str:
        """Wait until the kernel is said to be in one of `states`; returns which."""
        while (found := self.receive()["content"].get("execution_state")) not in states:
            pass
        return str(found)

    def finish(self, msg_id: str) -> tuple[str, str]:
        """Collect a cell until reply and idle are there; returns status or the error's name, and what was printed."""
        status, text, is_idle = "", "", False
        while not (status and is_idle):
            message = self.receive()
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "stream":
                    text += content["text"]
                case "status":
                    is_idle = is_idle or content["execution_state"] == "idle"
                case "execute_reply":
                    status = content.get("ename") or content["status"]
        return status, text

    def run(self, code: str) -> tuple[str, str]:
        return self.finish(self.execute(code))


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
        cell = channels.execute("import time\nprint('begun', flush=True)\ntime.sleep(60)")
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
        channels.execute("import time\nprint('begun', flush=True)\nwhile True: time.sleep(1)")
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
        cell = one.execute("import time\nprint('begun', flush=True)\ntime.sleep(60)")
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
        channels.execute("print('begun', flush=True)\nprint(open('gate').read())")
        channels.wait_text("begun")
    while server.ask("GET", f"api/kernels/{kernel_id}")[1]["connections"]:
        pass
    (root / "gate").write_text("missed")
    with Channels(server, kernel_id, channels.session) as again:
        again.wait_text("missed")


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


def test_a_kernel_that_cannot_come_back_is_dead_until_it_can(
    server: Server, make_kernelspec: MakeKernelspec, starter_image: Path, tmp_path: Path, places: Places
) -> None:
    image = tmp_path / "image.sif"
    image.symlink_to(starter_image)
    kernel_id = server.start_kernel(make_kernelspec({"image": str(image)}))
    with Channels(server, kernel_id) as channels:
        image.unlink()
        os.kill(get_instance(places, kernel_id).init.pid, signal.SIGKILL)
        assert channels.wait_state("dead") == "dead"
    assert list_entries(places) == []
    assert server.ask("POST", f"api/kernels/{kernel_id}/restart")[0] == 500
    image.symlink_to(starter_image)
    assert server.ask("POST", f"api/kernels/{kernel_id}/restart")[0] == 200
    with Channels(server, kernel_id) as channels:
        assert channels.run("print(1)") == ("ok", "1\n")


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
    root: Path, starter_kernel: str, places: Places, end: Any, request: pytest.FixtureRequest
) -> None:
    server = Server(root)
    request.addfinalizer(server.end)
    ids = [server.start_kernel(starter_kernel) for _ in range(2)]
    with Channels(server, ids[0]) as channels:
        channels.execute("import time\nprint('begun', flush=True)\nwhile True: time.sleep(1)")
        channels.wait_text("begun")
        instances = [entry.instance for entry in list_entries(places)]
        assert len(instances) == 2
        end(server)
        assert server.wait() == 0, "".join(server.log)
    assert not any(instance and instance.init.is_alive() for instance in instances)
    assert list_entries(places) == []
