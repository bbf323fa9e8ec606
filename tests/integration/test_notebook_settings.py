"""Settings that travel with a notebook, as a real server, nbclient, papermill and the launch door meet them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import papermill
import pytest
from jupyter_client.connect import write_connection_file
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook, new_output

from jupyter_apptainer.config import CONFIG_NAME
from jupyter_apptainer.kernels.kernelspecs import add_kernelspec
from jupyter_apptainer.kernels.notebook import VARIABLE
from jupyter_apptainer.kernels.spec import parse_container_spec
from jupyter_apptainer.places import Places
from tests.cli.conftest import run as run_cli
from tests.images.test_digest import write_image
from tests.integration.conftest import TIMEOUT_S, list_entries
from tests.integration.server import Channels, Server
from tests.kernels.test_settle import HOSTILE

# The same for every user, and slow.
pytestmark = pytest.mark.user

# A kernel that sees little, so that a notebook could widen it; one whose image does not exist, so that a notebook must choose.
NARROW = "narrow"
EMPTY = "empty"
READ = """
import os, pathlib, socket
try:
    pathlib.Path('/data/mine').touch()
except OSError as error:
    print(error.strerror)
print(pathlib.Path('/data/set').read_text(), os.environ['OMP_NUM_THREADS'], [name for _, name in socket.if_nameindex()])
"""


@dataclass
class Desk:
    """A server, the folder that it shows, and the reader's own configuration."""

    server: Server
    root: Path
    config: Path
    starter: str

    def write(self, name: str, metadata: object, kernel: str = EMPTY) -> Path:
        content = {"cells": [], "metadata": {"kernelspec": {"name": kernel}}, "nbformat": 4, "nbformat_minor": 5}
        if metadata is not None:
            content["metadata"]["apptainer"] = metadata  # type: ignore[index]  # an object, two lines above
        path = self.root / name
        path.write_text(json.dumps(content))
        return path

    def open(self, path: str, kernel: str = EMPTY, name: str | None = None) -> tuple[int, Any]:
        """Ask for a session, as a front end does when somebody opens the notebook."""
        body = {"path": path, "name": name or Path(path).name, "type": "notebook", "kernel": {"name": kernel}}
        return self.server.ask("POST", "api/sessions", body)


@pytest.fixture(scope="module")
def desk(starter_image: Path, places: Places, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    root, config, data = (tmp_path_factory.mktemp(name) for name in ("root", "config", "data"))
    (data / "set").write_text("numbers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_DATA_DIR", str(tmp_path_factory.mktemp("jupyter")))
        patch.setenv("JUPYTER_CONFIG_PATH", str(config))
        (config / f"{CONFIG_NAME}.py").write_text(f"c.ApptainerConfig.named_binds = {{'data': '{data}:/data:ro'}}\n")
        narrow = {"isolation": "contain", "network": "none", "home": "none"}
        for name, wish in {
            "starter": {"image": str(starter_image)},
            NARROW: {"image": str(starter_image), **narrow},
            EMPTY: {"image": str(root / "nosuch.sif")},
            "trusted": {"image": str(starter_image), "bridge": "full"},
        }.items():
            add_kernelspec(name, parse_container_spec(wish))
        for name in ("evil.sif", "o.img", starter_image.name):
            write_image(root / name)
        (root / "link.sif").symlink_to("evil.sif")
        (root / "home-link").symlink_to(Path.home())
        server = Server(root)
        try:
            yield Desk(server, root, config, starter_image.name)
        finally:
            server.end()


@pytest.fixture(autouse=True)
def no_kernel_stays(desk: Desk, places: Places) -> Iterator[None]:
    yield
    for session in desk.server.ask("GET", "api/sessions")[1]:
        desk.server.ask("DELETE", f"api/sessions/{session['id']}")
    assert list_entries(places) == []


def test_a_notebook_chooses_its_image_by_digest_and_its_data_by_name(desk: Desk, starter_image: Path) -> None:
    digest = hashlib.sha256(starter_image.read_bytes()).hexdigest()
    wish = {
        "image": f"whatever.sif@sha256:{digest}",
        "nv": True,
        "env": {"OMP_NUM_THREADS": "3"},
        "binds": ["data"],
        "network": "none",
    }
    desk.write("good.ipynb", wish)
    status, session = desk.open("good.ipynb")
    assert status == 201, session
    with Channels(desk.server, session["kernel"]["id"]) as channels:
        result, text = channels.run(READ)
    # Where there is no GPU, `nv` leaves a word about that below the first cell.
    assert (result, text.splitlines()[:2]) == ("ok", ["Read-only file system", "numbers 3 ['lo']"])
    for name, value in {"nv": "true", "env.OMP_NUM_THREADS": "3", "network": "none"}.items():
        assert f"{name} is {value}, from the notebook {desk.root}/good.ipynb" in "".join(desk.server.log)


def test_a_notebook_that_was_not_saved_has_the_kernels_own_settings(desk: Desk) -> None:
    status, session = desk.open("never-saved.ipynb", "starter")
    assert status == 201, session


def test_a_running_kernel_gets_other_settings_that_its_notebook_keeps(desk: Desk) -> None:
    path = desk.write("change.ipynb", {"env": {"OMP_NUM_THREADS": "3"}}, "trusted")
    status, session = desk.open("change.ipynb", "trusted")
    assert status == 201, session
    kernel_id = session["kernel"]["id"]
    look = "import os; print(os.environ['OMP_NUM_THREADS'], os.path.exists('/data/set'), globals().get('kept'))"
    with Channels(desk.server, kernel_id) as channels:
        assert channels.run(f"kept = 1; {look}") == ("ok", "3 False 1\n")
        before = path.read_text()
        refused = run_cli("kernel", "restart", kernel_id, "--bind", "/etc:/root")
        assert refused.returncode == 1
        assert "NotebookPolicy" in refused.stderr
        assert path.read_text() == before
        assert channels.run("kept") == ("ok", "")

        # Its own cell may say so as well, where its bridge lets it: for the next start, and for one that comes at once.
        ended, _ = channels.run("%load_ext jupyter_apptainer\n%apptainer bind data")
        assert ended == "ok"
        assert json.loads(path.read_text())["metadata"]["apptainer"]["binds"] == ["data"]
        assert channels.run(look) == ("ok", "3 False 1\n")
        channels.execute("%apptainer restart --env OMP_NUM_THREADS=4")
        channels.wait_state("restarting")
        assert channels.run(look) == ("ok", "4 True None\n")

        # Or kernel.json is changed, for all its notebooks.
        edited = run_cli("kernel", "edit", "trusted", "--env", "EDITED=yes", "--restart", "change.ipynb")
        assert edited.returncode == 0, edited.stderr
        channels.wait_state("restarting")
        assert channels.run("import os; print(os.environ['EDITED'], os.environ['OMP_NUM_THREADS'])") == (
            "ok",
            "yes 4\n",
        )
    assert json.loads(path.read_text())["metadata"]["apptainer"] == {
        "binds": ["data"],
        "env": {"OMP_NUM_THREADS": "4"},
    }
    assert json.loads(path.read_text())["metadata"]["kernelspec"] == {"name": "trusted"}

    later = run_cli("kernel", "restart", "change.ipynb", "--unset", "binds", "--unset", "env", "--later")
    assert later.returncode == 0, later.stderr
    assert "apptainer" not in json.loads(path.read_text())["metadata"]


@pytest.mark.parametrize(("metadata", "field"), HOSTILE.values(), ids=HOSTILE)
def test_a_strangers_notebook_is_refused_in_the_dialog(desk: Desk, metadata: dict[str, Any], field: str) -> None:
    desk.write("hostile.ipynb", metadata)
    status, answer = desk.open("hostile.ipynb", NARROW)
    assert status == 500
    assert f"hostile.ipynb asks for what your NotebookPolicy does not allow:\n  {field}: " in answer["message"]
    assert "\nHint: take it out of the notebook's metadata" in answer["message"]
    assert desk.server.ask("GET", "api/kernels")[1] == []


BROKEN: dict[str, tuple[str, str]] = {
    "digest of another image": (json.dumps({"apptainer": {"image": "STARTER@sha256:" + "0" * 64}}), "another one"),
    "digest of no image": (json.dumps({"apptainer": {"image": "sha256:" + "0" * 64}}), "none of your images"),
    "no object": ('{"apptainer": ["--bind", "/"]}', "expected an object"),
    "huge": (json.dumps({"apptainer": {"env": {"NOTEBOOK_A": "x" * 100_000}}}), "characters"),
    "deep": ('{"apptainer": ' + "[" * 100_000, "JSON"),
    "unknown field": (json.dumps({"apptainer": {"mounts": ["/"]}}), "mounts"),
    "engine's bind syntax": (json.dumps({"apptainer": {"binds": ["/etc,/root"]}}), "/etc,/root"),
    "options in a bind": (json.dumps({"apptainer": {"binds": ["/etc:/mnt:ro,suid"]}}), "SRC:DEST:ro"),
}


@pytest.mark.parametrize(("metadata", "word"), BROKEN.values(), ids=BROKEN)
def test_a_broken_notebook_is_refused_in_the_dialog(desk: Desk, metadata: str, word: str) -> None:
    text = (
        f'{{"cells": [], "nbformat": 4, "nbformat_minor": 5, "metadata": {metadata.replace("STARTER", desk.starter)}}}'
    )
    (desk.root / "broken.ipynb").write_text(text)
    status, answer = desk.open("broken.ipynb", "starter")
    assert status == 500
    assert word in answer["message"]


def test_what_is_no_notebook_is_refused_in_the_dialog(desk: Desk) -> None:
    os.mkfifo(desk.root / "pipe.ipynb")
    status, answer = desk.open("pipe.ipynb", "starter")
    assert (status, "is not a file" in answer["message"]) == (500, True)
    outside = desk.root.parent / "outside.ipynb"
    for name in (str(outside), "../outside.ipynb"):
        status, answer = desk.open("inside.ipynb", "starter", name=name)
        assert (status, "is outside of this server's folder" in answer["message"]) == (500, True)


@pytest.mark.parametrize(
    ("policy", "kernel", "word"),
    [
        ("ApptainerPolicy.images = ['/images-of-the-site']", "starter", "image: "),
        ("ApptainerPolicy.networks = ['none']", "starter", "network: host: "),
        ("ApptainerPolicy.images = ['/']", "shell", "extra_flags: "),
        ("ApptainerPolicy.imags = []", "starter", "imags, which does not exist"),
    ],
    ids=["image", "network", "flags", "misspelled"],
)
def test_a_policy_refuses_kernel_json_as_well(
    desk: Desk, starter_image: Path, places: Places, tmp_path: Path, policy: str, kernel: str, word: str
) -> None:
    add_kernelspec(
        "shell",
        parse_container_spec({"image": str(starter_image), "extra_flags": ["--bind", "/etc:/mnt"]}),
        replace=True,
    )
    file = desk.config / f"{CONFIG_NAME}.json"
    section, _, rest = policy.partition(".")
    name, _, value = rest.partition(" = ")
    file.write_text(json.dumps({section: {name: json.loads(value.replace("'", '"'))}}))
    try:
        status, answer = desk.open("plain.ipynb", kernel)
        listed = run_cli("kernel", "check", kernel)
    finally:
        file.unlink()
    assert (status, word in answer["message"]) == (500, True), answer["message"]
    assert str(desk.config) in answer["message"]
    assert (listed.returncode, "✗ policy" in listed.stdout) == (1, True), listed


def test_a_digest_in_kernel_json_is_checked(desk: Desk, starter_image: Path, places: Places) -> None:
    for name, digest in (("right", hashlib.sha256(starter_image.read_bytes()).hexdigest()), ("wrong", "0" * 64)):
        add_kernelspec(name, parse_container_spec({"image": f"{starter_image}@sha256:{digest}"}))
    checked = run_cli("kernel", "check", "right")
    assert (checked.returncode, "✓ image" in checked.stdout) == (0, True), checked
    status, answer = desk.open("plain.ipynb", "wrong")
    assert (status, "is another one than was asked for" in answer["message"]) == (500, True)
    assert run_cli("kernel", "check", "wrong").returncode == 1


def test_limits_on_the_servers_command_line_hold(starter_image: Path, desk: Desk, tmp_path: Path) -> None:
    server = Server(tmp_path, "--ApptainerPolicy.images=/images-of-the-site", "--ApptainerPolicy.networks=none")
    try:
        status, answer = server.ask("POST", "api/kernels", {"name": "starter"})
    finally:
        server.end()
    assert status == 500
    for line in ("the policy of this server does not allow", "\n  image: ", "\n  network: host"):
        assert line in answer["message"]


def test_the_machines_policy_holds_whatever_the_users_environment_says(desk: Desk, tmp_path: Path) -> None:
    """A file system of our own over the machine's folder; /usr/local/etc is there on every machine, /etc/jupyter is not."""
    (tmp_path / f"{CONFIG_NAME}.py").write_text("c.ApptainerPolicy.images = ['*']\n")
    script = f"""
        mount -t tmpfs none /usr/local/etc && mkdir /usr/local/etc/jupyter
        echo 'c.ApptainerPolicy.images = ["/images-of-the-site"]' > /usr/local/etc/jupyter/{CONFIG_NAME}.py
        exec "$@"
    """
    environ = os.environ | {
        "JUPYTER_CONFIG_DIR": str(tmp_path),
        "JUPYTER_CONFIG_PATH": str(tmp_path),
        "JUPYTER_NO_CONFIG": "1",
        "HOME": str(tmp_path),
        # Jupyter leaves a folder there.
        "TMPDIR": str(tmp_path),
    }
    argv = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script, "sh"]
    argv += [sysconfig.get_path("scripts") + "/jupyter-apptainer", "kernel", "explain", "starter"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 1, done
    assert "what the policy in /usr/local/etc/jupyter does not allow:\n  image: " in done.stderr


def test_explain_says_where_each_value_comes_from(desk: Desk) -> None:
    book = desk.write("explained.ipynb", {"image": desk.starter, "binds": ["data"], "nv": False})
    done = run_cli("kernel", "explain", EMPTY, "--notebook", book)
    assert done.returncode == 0, done.stderr
    assert f"#   nv = false  (notebook {book})" in done.stdout
    settings = json.loads(run_cli("kernel", "explain", EMPTY, "--notebook", book, "--json").stdout)["settings"]
    assert {setting["name"]: setting["origin"] for setting in settings} == dict.fromkeys(
        ("image", "nv", "binds"), f"notebook {book}"
    )
    desk.write("explained.ipynb", {"binds": ["/etc"]})
    done = run_cli("kernel", "explain", EMPTY, "--notebook", book)
    assert (done.returncode, "binds: /etc: " in done.stderr) == (1, True)


# --- programs that have no session


def test_nbclient_is_told_the_notebook(desk: Desk) -> None:
    book = desk.write("run.ipynb", {"image": desk.starter, "binds": ["data"]})
    notebook = new_notebook(cells=[new_code_cell("print(open('/data/set').read())")])  # type: ignore[no-untyped-call]  # nbformat's functions are annotated in part
    NotebookClient(notebook, kernel_name=EMPTY, timeout=int(TIMEOUT_S)).execute(notebook=str(book))
    assert notebook.cells[0].outputs == [new_output("stream", name="stdout", text="numbers\n")]  # type: ignore[no-untyped-call]  # as above


def test_parameters_of_a_start_come_over_the_notebook(desk: Desk) -> None:
    book = desk.write("run.ipynb", {"env": {"OMP_NUM_THREADS": "1"}, "network": "none"})
    file = KernelSpecManager().get_kernel_spec("starter").resource_dir + "/kernel.json"
    document = json.loads(Path(file).read_text())
    document["metadata"]["parameters"] = {"properties": {"env": {"type": "object"}, "network": {"enum": ["host"]}}}
    Path(file).write_text(json.dumps(document))
    notebook = new_notebook(cells=[new_code_cell("import os; print(os.environ['OMP_NUM_THREADS'])")])  # type: ignore[no-untyped-call]  # as above
    client = NotebookClient(notebook, kernel_name="starter", timeout=int(TIMEOUT_S))
    with pytest.raises(RuntimeError, match=r"network: \"none\", expected one of \['host'\]"):
        client.execute(notebook=str(book), parameters={"network": "none"})
    client.execute(notebook=str(book), parameters={"env": {"OMP_NUM_THREADS": "2"}})
    assert notebook.cells[0].outputs[0].text == "2\n"


def test_papermill_is_told_the_notebook_by_a_variable(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    book = desk.write("mill.ipynb", {"binds": ["/etc"]})
    monkeypatch.setenv(VARIABLE, str(book))
    with pytest.raises(RuntimeError, match=r"binds: /etc: folders that may be bound: none"):
        papermill.execute_notebook(book, None, kernel_name="starter", progress_bar=False)


def test_launch_door_is_told_the_notebook_by_a_variable(desk: Desk, tmp_path: Path) -> None:
    book = desk.write("door.ipynb", {"home": "none", "env": {"LD_PRELOAD": "./x.so"}})
    connection, _ = write_connection_file(str(tmp_path / "connection.json"))
    argv = [
        word.replace("{connection_file}", connection) for word in KernelSpecManager().get_kernel_spec("starter").argv
    ]
    done = subprocess.run(
        argv, env=os.environ | {VARIABLE: str(book)}, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert (done.returncode, "env: LD_PRELOAD: " in done.stderr) == (1, True), done.stderr
