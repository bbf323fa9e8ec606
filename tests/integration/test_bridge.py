"""`%apptainer` in real container kernels: what it gives, what it refuses, and that it leaves nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

from benchmarks.bridge import main
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.kernels.kernelspecs import add_kernelspec, remove_kernelspec
from jupyter_apptainer.kernels.spec import parse_container_spec
from jupyter_apptainer.places import Places, make_private_dir
from tests.integration.conftest import TIMEOUT_S, RunningKernel, StartKernel

# A client of one's own, as hostile as it likes: `ask(line)` sends bytes, and returns the end or how the connection was cut.
CLIENT = """
import json, os, socket
def connect():
    s = socket.socket(socket.AF_UNIX); s.connect(os.environ["JUPYTER_APPTAINER_SOCK"]); s.settimeout(30); return s
def read_end(s):
    data = b""
    while b'"end"' not in data or not data.endswith(b"\\n"):
        got = s.recv(1 << 20)
        if not got:
            return {"cut": True}
        data += got
    return json.loads(data.splitlines()[-1])["end"]
def ask(*words, raw=None, **fields):
    with connect() as s:
        s.sendall(raw or json.dumps({"version": 1, "ask": "run", "words": words, **fields}).encode() + b"\\n")
        return read_end(s)
"""

PANEL = """
import threading
from dataclasses import replace
shown = get_ipython().run_line_magic("apptainer", "panel")
def load(page):
    return shown._source.load(page)
def press(action):
    outcomes, over = [], threading.Event()
    def end(outcome):
        outcomes.append(outcome)
        over.set()
    shown._source.start(action, end)
    over.wait(60)
    return vars(outcomes[0])
def click(page, label):
    return press(next(action for action in load(page).rows[0].actions if action.label == label))
def submit(page, label, **values):
    section = load(page)
    form = next(form for form in section.forms if form.label == label)
    words = form.build({**{field.name: field.default for field in form.fields}, **values}, section.rows[0].key)
    return press(replace(section.rows[0].actions[0], words=words))
"""


def start_module_kernel(name: str, config: dict[str, Any], cwd: Path) -> Iterator[RunningKernel]:
    add_kernelspec(name, parse_container_spec(config), display_name=name, debugger=True)
    manager = KernelManager(kernel_name=name)
    manager.start_kernel(cwd=str(cwd))
    kernel = RunningKernel(manager, manager.client())
    try:
        kernel.connect()
        # The worker comes with the first request, and stays; so does what the panel asks.
        assert (
            kernel.run("%load_ext jupyter_apptainer\n%apptainer version\n" + CLIENT + PANEL + "load('tasks')").status
            == "ok"
        )
        yield kernel
    finally:
        kernel.end()
        remove_kernelspec(name)


@pytest.fixture(scope="module")
def reading(starter_image: Path, places: Places, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKernel]:
    """A kernel with the bridge that every kernel has."""
    yield from start_module_kernel("t-read", {"image": str(starter_image)}, tmp_path_factory.mktemp("read"))


@pytest.fixture(scope="module")
def full(starter_image: Path, places: Places, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKernel]:
    """A kernel that may do everything, and has a folder under another name."""
    data = tmp_path_factory.mktemp("data")
    # It comes with the first kernel, and this may be that one.
    make_private_dir(places.runtime)
    config = {"image": str(starter_image), "bridge": "full", "binds": [f"{data}:/mnt/data", str(places.runtime)]}
    yield from start_module_kernel("t-full", config, tmp_path_factory.mktemp("full"))


def socket_of(kernel: RunningKernel) -> str:
    return str(kernel.value("os.environ['JUPYTER_APPTAINER_SOCK']"))


# --- read


def test_status_tells_what_the_kernel_runs_in(reading: RunningKernel, starter_image: Path) -> None:
    text = reading.run("%apptainer").data["text/plain"]
    assert str(starter_image) in text
    assert reading.instance.name in text
    status = reading.value("get_ipython().run_line_magic('apptainer', 'status')")
    assert status["bridge"] == "read"
    assert all(bind["is_mounted"] for bind in status["binds"])
    assert status["processes"] >= 2


def test_listings_are_objects_and_help_is_text(reading: RunningKernel) -> None:
    reply = reading.run("found = %apptainer instance list\nfound")
    assert reply.status == "ok", reply
    assert reading.instance.name in reply.data["text/plain"]
    assert "<table>" in reply.data["text/html"]
    assert reading.value(f"[row.notebook for row in found if row.name == {reading.instance.name!r}]") == ["t-read"]
    assert "--bind" in reading.run("%apptainer exec --help").text
    rows = reading.value("get_ipython().run_line_magic('apptainer', 'kernel list --json')")
    assert reading.value("type(get_ipython().run_line_magic('apptainer', 'kernel list')).__name__") == "Table"
    assert "t-read" in [row["name"] for row in rows]


def test_completion_comes_from_the_engine(reading: RunningKernel) -> None:
    code = "%apptainer instance st"
    content = reading.client.complete(code, len(code), reply=True, timeout=30)["content"]
    assert {"start", "stats", "stop"} <= set(content["matches"])
    code = "%%apptainer build x.sif\nBootstrap: docker\nFrom: a\n%po"
    content = reading.client.complete(code, len(code), reply=True, timeout=30)["content"]
    assert (content["matches"], code[content["cursor_start"] :]) == (["%post"], "%po")


def test_what_is_refused_is_one_message_with_a_hint(reading: RunningKernel) -> None:
    reply = reading.run("%apptainer exec instance://this true")
    assert reply.ename == "ApptainerError"
    assert "is refused: the bridge of this kernel is `read`" in reply.evalue
    assert "kernel edit" in reply.evalue
    assert reading.run("%apptainer instence list").evalue.startswith("'instence' is no command; nearest is `instance`")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("version | wc", "no shell reads this line"),
        ("version $NOBODY", "no variable NOBODY"),
        ("registry login docker://127.0.0.1:1", "lacks --username"),
        ("--var x:pickle exec i.sif python", "no pickle crosses"),
    ],
    ids=["shell", "variable", "login", "pickle"],
)
def test_a_line_is_read_as_on_the_host(reading: RunningKernel, line: str, text: str) -> None:
    reply = reading.run(f"%apptainer {line}")
    assert (reply.ename, text in reply.evalue) == ("SpecError", True), reply


def test_a_missing_file_that_the_host_has_is_followed_by_the_bind(
    reading: RunningKernel, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = next(path for path in (Path("/srv"), Path("/opt"), Path("/home")) if path.is_dir())
    reply = reading.run(f"import os; os.listdir('{folder}/')\nopen('{folder}/none-such')")
    assert "Hint" not in reply.text
    reply = reading.run("open('/etc/hostname-none'); ")
    assert "Hint" not in reply.text


HOSTILE = """
results = {}
def note(name, end): results[name] = (end.get("error") or {}).get("code", "cut" if "cut" in end else end.get("code"))
note("garbage", ask(raw=b"\\xff\\xfe\\n"))
note("nested", ask(raw=b"[" * 200000 + b"\\n"))
note("http", ask(raw=b"GET / HTTP/1.0\\r\\n\\r\\n"))
note("version", ask(raw=b'{"version": 99, "ask": "run"}\\n'))
note("unknown", ask(raw=b'{"version": 1, "ask": "eval"}\\n'))
note("exec", ask("exec", "/bin/sh", "-c", "id"))
note("debug", ask("-d", "version"))
note("config", ask("--config", os.getcwd() + "/evil.conf", "version"))
note("logs", ask("instance", "list", "--logs"))
note("body", ask("version", stdin="x"))
note("inspect", ask("inspect", "/etc/shadow"))
note("inspect-link", (os.path.lexists("l.sif") or os.symlink("/etc/shadow", "l.sif"), ask("inspect", "l.sif"))[1])
note("cwd", ask("version", cwd="/no/such"))
note("good", ask("version"))
"""


def test_hostile_requests_are_refused_and_the_bridge_goes_on(reading: RunningKernel) -> None:
    assert reading.run(HOSTILE).status == "ok"
    results = reading.value("results")
    assert {results.pop(name) for name in ("garbage", "nested", "http", "version", "unknown")} == {"bridge-error"}
    assert (results.pop("cwd"), results.pop("good")) == (0, 0)
    assert set(results.values()) == {"forbidden-by-policy"}, results


def test_modules_in_the_notebooks_folder_are_not_the_hosts(reading: RunningKernel) -> None:
    """Python looks for modules in its working directory, and this one is the container's to write."""
    names = ("json", "argparse", "sitecustomize", "jupyter_apptainer", "traitlets")
    reading.run(f"for name in {names}: open(name + '.py', 'w').write('open(\\'caught\\', \\'w\\')')")
    reading.run("%apptainer kernel list")
    assert reading.value("os.path.exists('caught')") is False
    reading.run(f"for name in {names}: os.unlink(name + '.py')")


def test_paths_are_only_told_of_where_the_kernel_could_have_them(reading: RunningKernel) -> None:
    reading.run(
        "tell = lambda path: ask(raw=json.dumps({'version': 1, 'ask': 'path', 'words': [path]}).encode() + b'\\n')['value']"
    )
    for path in ("/etc/shadow", "/proc/1/environ", "/root/.bashrc", "/usr/bin/env", "/", "/none-such", "/run", "a\\0b"):
        assert reading.value(f"tell({path!r})") is None, path


def test_many_connections_and_slow_readers_do_not_keep_others_out(reading: RunningKernel) -> None:
    reply = reading.run(
        "idle = [connect() for _ in range(40)]\n"
        "ends = []\n"
        "for s in idle[16:]:\n"
        "    s.settimeout(10); ends.append(read_end(s)['error']['code'])\n"
        "for s in idle: s.close()\n"
        "import time\n"
        "while (ask('version').get('error') or {}).get('code') == 'bridge-error': time.sleep(0.01)\n"
        "print(set(ends), ask('version')['code'])"
    )
    assert reply.text == "{'bridge-error'} 0\n", reply


# --- another kernel, and another process


def test_nobody_else_can_use_it(reading: RunningKernel, full: RunningKernel) -> None:
    """Not a process of the same user on the host, nor another container that has even the folder bound."""
    path = socket_of(reading)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.settimeout(30)
        answer = json.loads(connection.makefile().readline())["end"]
    assert "not in this kernel's container" in answer["error"]["message"]
    assert full.value(f"os.path.exists({path!r})")
    code = f"import os; own = os.environ['JUPYTER_APPTAINER_SOCK']; os.environ['JUPYTER_APPTAINER_SOCK'] = {path!r}\n%apptainer version"
    reply = full.run(code)
    full.run("os.environ['JUPYTER_APPTAINER_SOCK'] = own")
    assert "not in this kernel's container" in reply.evalue
    assert full.run("%apptainer version").text[0].isdigit()


def test_the_panel_reads_the_host_and_says_what_its_level_does_not_admit(reading: RunningKernel) -> None:
    shown = reading.run("shown").data
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert "<h3>GPU</h3>" in shown["text/html"]
    assert reading.instance.name in shown["text/plain"]
    assert reading.value("load('kernel').rows[0].key") == reading.instance.name
    reasons = reading.value("{each.label: each.reason for each in load('kernel').rows[0].actions}")
    assert set(reasons.values()) == {
        "the bridge of this kernel is `read`: `jupyter apptainer kernel edit t-read --bridge full` on the host opens it"
    }
    assert reading.value("click('images', 'Inspect')")["is_ok"]
    # Who does not mind the grey buttons is refused by the host.
    refused = reading.value("click('kernel', 'Stop')")
    assert (refused["is_ok"], "`kernel stop` is refused" in refused["message"]) == (False, True)
    assert not reading.value("submit('images', 'Pull', uri='docker://127.0.0.1:9/a')")["is_ok"]
    assert reading.value("shown._source.list_entries('/')") == []
    for words in (["act", "images", "x", "rm"], ["load", "../x"], ["code", "x"], ["act"], []):
        assert reading.value(f"ask(*{words!r}, ask='panel')['error']['code']")


# --- full


def test_the_panel_acts_on_the_host(full: RunningKernel, starter_image: Path, places: Places) -> None:
    assert "lib/" in full.value("shown._source.list_entries('/usr')")
    assert "ootstrap:" in full.value("click('images', 'Recipe')")["output"]
    made = full.value("submit('images', 'Make a kernel', name='t-made')")
    assert made["is_ok"], made
    remove_kernelspec("t-made")
    # What is filled in may be a path of the notebook's folder, and what cannot be is said by the host.
    assert (
        "no-such" in full.value("submit('kernel', 'Bind a folder', source='no-such', ro=False, now=False)")["message"]
    )
    assert (
        "Kept for cannot be" in full.value("submit('kernel', 'Restart with changes', nv='auto', scope='x')")["message"]
    )


def test_commands_run_on_the_host_and_stream(full: RunningKernel, starter_image: Path) -> None:
    reply = full.run("%%apptainer exec instance://this\necho to $((6 * 7)); echo err >&2; pwd")
    assert "to 42" in reply.text
    assert "err" in reply.text
    full.run(f"%%apptainer --out got exec {starter_image} python3\nprint(6 * 7)")
    assert full.value("got") == "42\n"
    cell = full.client.execute("%apptainer exec instance://this sh -c 'echo first; read x < pipe; echo last'")
    os.mkfifo(Path(full.provisioner.kernel.plan.cwd, "pipe"))  # type: ignore[union-attr]  # it runs
    full.wait_text(cell, "first")
    Path(full.provisioner.kernel.plan.cwd, "pipe").write_text("go\n")  # type: ignore[union-attr]  # it runs
    assert "last" in full.finish(cell).text


def test_paths_of_the_container_are_the_hosts(full: RunningKernel, starter_image: Path) -> None:
    full.run("os.chdir('/mnt/data'); open('x', 'w').write('content')")
    assert full.run(f"%apptainer exec --bind /mnt/data:/in {starter_image} cat /in/x").text.endswith("content")
    assert full.run(f"%apptainer exec --bind .:/in {starter_image} cat /in/x").text.endswith("content")
    full.run("os.chdir('/opt')")
    assert "in the image" in full.run("%apptainer exec instance://this true").evalue
    full.run(f"os.chdir({full.provisioner.kernel.plan.cwd!r})")  # type: ignore[union-attr]  # it runs


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("exec none.sif true", "does not exist"),
        ("exec instance://this no-such-program", "no-such-program"),
        ("exec instance://this sh -c 'exit 3'", "exit status 3"),
        ("kernel show none", "no container kernel none"),
        ("shell instance://this", "shell cannot run in a cell"),
        ("instence list", "no command 'instence'"),
        ("restart --nv true", "not known which notebook"),
    ],
)
def test_failures_are_diagnosed(full: RunningKernel, line: str, text: str) -> None:
    reply = full.run(f"%apptainer {line}")
    assert (reply.ename, text in reply.evalue) == ("ApptainerError", True), reply
    assert full.run(f"%apptainer --no-raise-error {line}").status == "ok"


def test_cells_are_recipes_and_programs_with_variables(full: RunningKernel) -> None:
    reply = full.run("%%apptainer build out.sif\nBootstrap: nonsense\nFrom: x")
    assert "line 2 of the cell" in reply.evalue
    assert full.value("[name for name in os.listdir('.') if name.endswith('.def')]") == []
    reply = full.run("given = [1, 2]\nnew = None")
    reply = full.run(
        "%%apptainer --var given --var new exec instance://this python3\nnew = {'sum': sum(given)}; given.append(3)\nprint('ran')"
    )
    assert reply.text == "ran\n", reply
    assert full.value("[given, new]") == [[1, 2, 3], {"sum": 3}]
    assert "no pickle crosses" in full.run("%%apptainer --var given:pickle exec instance://this python3\n1").evalue


def test_interrupt_stops_what_runs_on_the_host(start_kernel: StartKernel, starter_image: Path) -> None:
    """`leaves_no_trace` finds what goes on."""
    kernel = start_kernel({"bridge": "full"})
    kernel.run("%load_ext jupyter_apptainer\n" + CLIENT)
    cell = kernel.begin(f"%apptainer exec {starter_image} sh -c 'echo begun; sleep 600'")
    kernel.wait_text(cell, "begun")
    kernel.manager.interrupt_kernel()
    assert kernel.finish(cell).ename == "KeyboardInterrupt"
    job = "job = %apptainer --bg exec instance://this sh -c 'echo begun; sleep 600'"
    assert kernel.run(job + "\njob.stop(); print(job.wait(60))").text.endswith("130\n")
    # A client that reads nothing holds up the command, and nobody else; what is kept of it has a limit.
    line = {"version": 1, "ask": "run", "words": ["exec", "instance://this", "yes"]}
    reply = kernel.run(
        f"slow = connect()\nslow.sendall(json.dumps(dict({line!r}, cwd=os.getcwd())).encode() + b'\\n')\n"
        "print(ask('version', cwd=os.getcwd())['code'], len(slow.recv(100)) > 0)\nslow.close()"
    )
    assert reply.text == "0 True\n", reply
    kernel.run("%apptainer --quiet --proc done exec instance://this sh -c 'yes | head -c 20000000'")
    assert 0 < kernel.value("len(done.stdout)") <= 16 << 20


def test_the_end_of_the_kernel_stops_what_it_asked_for(start_kernel: StartKernel, starter_image: Path) -> None:
    """`leaves_no_trace` finds the program if it goes on."""
    kernel = start_kernel({"bridge": "full"})
    kernel.run("%load_ext jupyter_apptainer")
    reply = kernel.run(
        f"job = %apptainer --bg exec {starter_image} sh -c 'touch begun; sleep 600'\n"
        "import os, time\nwhile not os.path.exists('begun'): time.sleep(0.01)\nprint(job.returncode)"
    )
    assert reply.text == "None\n"
    kernel.manager.shutdown_kernel(now=True)


def test_it_stays_over_a_restart(start_kernel: StartKernel, engine: EngineInfo) -> None:
    kernel = start_kernel()
    for _ in range(2):
        kernel.run("%load_ext jupyter_apptainer")
        assert kernel.run("%apptainer version").text.strip() == engine.version_text
        # What is lent cannot be changed.
        assert kernel.run("open(__import__('jupyter_apptainer').__file__, 'w')").ename == "OSError"
        kernel.manager.restart_kernel()
        kernel.client.wait_for_ready(timeout=TIMEOUT_S)


def test_off_is_no_socket_at_all(start_kernel: StartKernel) -> None:
    kernel = start_kernel({"bridge": "off"})
    assert kernel.value("__import__('os').environ.get('JUPYTER_APPTAINER_SOCK')") is None
    assert kernel.run("%load_ext jupyter_apptainer").ename == "ModuleNotFoundError"
    assert not list(Path(kernel.provisioner.kernel.plan.private_dir).glob("bridge*"))  # type: ignore[union-attr]  # it runs


def test_the_benchmark_measures(starter_image: Path, places: Places, tmp_path: Path) -> None:
    """No duration is looked at."""
    assert main(["--image", str(starter_image), "--rounds", "1", "--json", str(tmp_path / "figures")]) == 0
    assert set(json.loads((tmp_path / "figures").read_text())) == {"bridge"}


# --- the owner

_OWNER = textwrap.dedent(
    """
    import sys
    from jupyter_client.manager import KernelManager
    manager = KernelManager(kernel_name=sys.argv[1])
    manager.start_kernel(cwd=sys.argv[2])
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    client.execute("%load_ext jupyter_apptainer\\njob = %apptainer --bg exec " + sys.argv[3] + " sh -c 'touch begun; sleep 600'")
    import os, time
    while not os.path.exists(sys.argv[2] + "/begun"):
        time.sleep(0.01)
    os.kill(os.getpid(), 9)
    """
)


def test_the_end_of_the_server_stops_what_was_asked_for(
    make_kernelspec: Any, starter_image: Path, tmp_path: Path, places: Places
) -> None:
    """Killed, it can stop nothing itself: the worker sees its end. `leaves_no_trace` finds what goes on."""
    name = make_kernelspec({"bridge": "full"})
    subprocess.run([sys.executable, "-c", _OWNER, name, tmp_path, starter_image], stdin=subprocess.DEVNULL, check=False)
    assert (tmp_path / "begun").exists()
