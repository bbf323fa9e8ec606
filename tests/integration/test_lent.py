"""A kernel in an image whose Python has no ipykernel: ours is lent, and everything works as with one of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager

from benchmarks.twin import find_bare_python
from jupyter_apptainer import Engine
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.images.probe import LENT_DIR
from jupyter_apptainer.places import Places
from tests.integration.conftest import TIMEOUT_S, RunningKernel, StartKernel
from tests.integration.test_debugger import CELL, Debugger

# The same for every user, and slow.
pytestmark = pytest.mark.user

PROGRAM = Path(sysconfig.get_path("scripts")) / "jupyter-apptainer"
NAME = "t-lent"

COUNTED = """
hits = 0
try:
    print("begun")
    import subprocess; subprocess.run(["sleep", "60"])
except KeyboardInterrupt:
    hits += 1
    try:
        import time; time.sleep(0.4)
    except KeyboardInterrupt:
        hits += 1
print("hits", hits)
"""


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "kernel", *words], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL, timeout=240
    )


def explain_bind() -> dict[str, str]:
    """The bind of what is lent, as `kernel explain` shows it."""
    plan = json.loads(run("explain", NAME, "--json").stdout)
    assert "--lent" in plan["kernel_command"]
    (bind,) = [bind for bind in plan["options"]["binds"] if bind["destination"] == LENT_DIR]
    found: dict[str, str] = bind
    return found


@pytest.fixture(scope="module")
def command(engine: EngineInfo, starter_image: Path) -> list[str]:
    """A kernel in the distribution's own Python, without any package; the starter image has its packages in an environment."""
    python = find_bare_python(engine, str(starter_image), "python")
    assert python
    return [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]


@pytest.fixture(scope="module")
def added(starter_image: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """What `kernel add` said, which fetched the ipykernel for this session of tests."""
    return run("add", NAME, starter_image, "--replace", "--command", " ".join(command))


@pytest.fixture(scope="module")
def lent_kernel(
    added: subprocess.CompletedProcess[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningKernel]:
    """One kernel for all tests that do not disturb it."""
    manager = KernelManager(kernel_name=NAME)
    manager.start_kernel(cwd=str(tmp_path_factory.mktemp("lent")))
    kernel = RunningKernel(manager, manager.client())
    try:
        kernel.connect()
        yield kernel
    finally:
        kernel.end()


@pytest.fixture
def own_kernel(added: subprocess.CompletedProcess[str], start_kernel: StartKernel) -> RunningKernel:
    return start_kernel(name=NAME)


def test_commands_say_that_ipykernel_is_lent(added: subprocess.CompletedProcess[str], places: Places) -> None:
    assert "Fetching an ipykernel for Python 3" in added.stderr
    assert "ipykernel lent (7" in run("check", NAME).stdout
    assert "✓ ready, ipykernel lent (7" in run("list").stdout
    (found,) = [kernel for kernel in json.loads(run("list", "--json").stdout) if kernel["name"] == NAME]
    assert found["is_ready"]
    bind = explain_bind()
    assert bind["mode"] == "ro"
    assert Path(bind["source"]).is_relative_to(places.lent)
    spec = json.loads((Path(added.stdout.strip()) / "kernel.json").read_text())
    assert (spec["metadata"]["debugger"], spec["metadata"]["supported_encryption"]) == (True, ["curve"])


def test_cells_run_and_completion_knows_their_names(lent_kernel: RunningKernel) -> None:
    assert lent_kernel.value("__import__('ipykernel').__file__").startswith(LENT_DIR)
    assert lent_kernel.run("first_value = 41\nfirst_value + 1").data["text/plain"] == "42"
    code = "first_va"
    message = lent_kernel.client.complete(code, len(code), reply=True, timeout=TIMEOUT_S)
    assert "first_value" in message["content"]["matches"]
    assert lent_kernel.run("1 / 0").ename == "ZeroDivisionError"


def test_a_comm_is_opened_and_answers(lent_kernel: RunningKernel) -> None:
    """What widgets talk through: the package ipywidgets itself is the image's matter."""
    lent_kernel.run(
        "from comm import get_comm_manager\n"
        "def opened(comm, message):\n    comm.on_msg(lambda m: comm.send({'double': 2 * m['content']['data']['n']}))\n"
        "get_comm_manager().register_target('t', opened)"
    )
    client = lent_kernel.client
    content = {"comm_id": "c1", "target_name": "t", "data": {}}
    client.shell_channel.send(client.session.msg("comm_open", content))
    client.shell_channel.send(client.session.msg("comm_msg", {"comm_id": "c1", "data": {"n": 21}}))
    while (message := client.get_iopub_msg(timeout=TIMEOUT_S))["msg_type"] != "comm_msg":
        continue
    assert message["content"]["data"] == {"double": 42}


def test_nothing_but_the_kernel_sees_what_is_lent(lent_kernel: RunningKernel) -> None:
    assert LENT_DIR not in lent_kernel.value("__import__('sys').path")
    assert not [value for value in lent_kernel.value("dict(__import__('os').environ)").values() if LENT_DIR in value]
    other = "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', {!r}], capture_output=True, text=True).stdout)"
    asked = "import importlib.util, importlib.metadata as m; print(importlib.util.find_spec('traitlets'), [d.name for d in m.distributions() if d.name == 'traitlets'])"
    assert lent_kernel.run(other.format(asked)).text.strip() == "None []"
    # Its own packages ask for their versions, so within the kernel they have some.
    assert lent_kernel.value("__import__('importlib.metadata').metadata.version('traitlets')").startswith("5")
    reply = lent_kernel.run(f"open('{LENT_DIR}/own.py', 'w')")
    assert (reply.ename, "Read-only" in reply.evalue) == ("OSError", True)


def test_the_host_answers_an_image_that_has_nothing_of_ours(own_kernel: RunningKernel, engine: EngineInfo) -> None:
    own_kernel.run("%load_ext jupyter_apptainer")
    assert own_kernel.run("%apptainer version").text.strip() == engine.version_text
    # Without ipywidgets the panel is a page.
    shown = own_kernel.run("%apptainer panel").data
    assert "<h3>Images</h3>" in shown["text/html"]
    assert "Images\n======" in shown["text/plain"]


def test_paths_that_a_notebook_adds_come_first(own_kernel: RunningKernel, tmp_path: Path) -> None:
    """No name of the lent packages is taken from the user, not even one that the kernel needs only later."""
    assert not own_kernel.value("'pure_eval' in __import__('sys').modules")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/pure_eval.py").write_text("mine = True\n")
    own_kernel.run("import sys; sys.path.append('mine')")
    assert own_kernel.value("__import__('pure_eval').mine") is True


def test_interrupt_arrives_once_and_restart_is_in_place(own_kernel: RunningKernel) -> None:
    kernel = own_kernel
    cell = kernel.begin(COUNTED)
    kernel.wait_text(cell, "begun")
    kernel.manager.interrupt_kernel()
    assert kernel.finish(cell).text == "hits 1\n"
    instance = kernel.instance
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=TIMEOUT_S)
    assert kernel.instance == instance
    assert kernel.value("6 * 7") == 42


def test_the_debugger_stops_in_a_cell(own_kernel: RunningKernel) -> None:
    debugger = Debugger(own_kernel)
    debugger.start()
    path = debugger.get_body("dumpCell", code=CELL)["sourcePath"]
    assert debugger.set_breakpoints(path, 2) == [True]
    cell = own_kernel.client.execute(CELL)
    thread = debugger.wait_event("stopped")["threadId"]
    assert [(frame["name"], frame["line"]) for frame in debugger.get_frames(thread)] == [("double", 2), ("<module>", 5)]
    debugger.get_body("continue", threadId=thread)
    assert own_kernel.finish(cell).text == "42\n"


def test_the_connection_can_be_encrypted(added: subprocess.CompletedProcess[str], start_kernel: StartKernel) -> None:
    manager = KernelManager(transport_encryption="required")
    kernel = start_kernel(manager=manager, name=NAME)
    assert json.loads(Path(manager.connection_file).read_text())["curve_publickey"]
    assert kernel.value("6 * 7") == 42


def test_packages_of_a_layer_win_and_the_ipykernel_fits_them(
    added: subprocess.CompletedProcess[str],
    start_kernel: StartKernel,
    starter_image: Path,
    command: list[str],
    tmp_path: Path,
) -> None:
    """First traitlets that are too old for the newest ipykernel; then a whole ipykernel, which is used instead of ours."""
    layer = tmp_path / "layer"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*pip, "--target", layer, "traitlets==5.1.1"], check=True, stdin=subprocess.DEVNULL)
    packages = Engine.find().exec(
        str(starter_image), [command[0], "-c", "import site; print(site.getsitepackages()[0])"]
    )
    site = packages.stdout.strip()
    config = {"image": str(starter_image), "command": command, "binds": [f"{layer}:{site}:ro"]}
    kernel = start_kernel(config)
    assert kernel.value("__import__('traitlets').__version__") == "5.1.1"
    assert kernel.value("__import__('ipykernel').__file__").startswith(LENT_DIR)
    assert kernel.run("1 / 0").ename == "ZeroDivisionError"
    kernel.end()

    kernel = start_kernel({**config, "binds": [f"{explain_bind()['source']}:{site}:ro"]})
    assert not kernel.value("__import__('ipykernel').__file__").startswith(LENT_DIR)
    assert LENT_DIR not in {bind.destination for bind in kernel.provisioner.kernel.plan.binds}  # type: ignore[union-attr]  # it runs
