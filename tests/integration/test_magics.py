"""The magics in a real kernel on the host, as a front end uses them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from jupyter_apptainer.engine.locate import EngineInfo
from tests.integration.server import Channels, Server
from tests.laboratory import Lab
from tests.registry import BreakingProxy, Registry

TIMEOUT_S = 60.0
PROMPT = "In \\[\\d+\\]: "


@pytest.fixture
def client(engine: EngineInfo, tmp_path: Path) -> Iterator[BlockingKernelClient]:
    """A client of a kernel on the host, with the extension loaded."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(tmp_path))
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=TIMEOUT_S)
    reply = client.execute("%load_ext jupyter_apptainer", reply=True, timeout=TIMEOUT_S)
    assert reply["content"]["status"] == "ok"
    client.interrupt = manager.interrupt_kernel  # type: ignore[attr-defined]  # for the tests below
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    manager.cleanup_resources()


def test_an_interrupted_build_leaves_nothing(client: BlockingKernelClient, tmp_path: Path, root: Path) -> None:
    """That no process and no scratch file is left is looked at after each test; here it is what the user sees."""
    code = f"%%apptainer build new.sif\nBootstrap: localimage\nFrom: {root}\n%post\n    while :; do :; done\n"
    msg_id = client.execute(code)
    text = ""
    while "Running %post" not in text:
        message = client.get_iopub_msg(timeout=TIMEOUT_S)
        text += message["content"].get("text", "") if message["msg_type"] == "stream" else ""
    client.interrupt()  # type: ignore[attr-defined]  # see the fixture
    reply = client.get_shell_msg(timeout=TIMEOUT_S)
    assert reply["parent_header"]["msg_id"] == msg_id
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    assert len(reply["content"]["traceback"]) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_pull_is_a_bar_of_one_line_and_an_interrupted_one_leaves_nothing(
    client: BlockingKernelClient, tmp_path: Path, registry: Registry, small_sif: Path, lab: Lab
) -> None:
    image = f"{registry.host}/cells/bar:1"
    client.execute(f"%env APPTAINER_CACHEDIR={lab.environ['APPTAINER_CACHEDIR']}", reply=True, timeout=TIMEOUT_S)
    reply = client.execute(f"%apptainer push {small_sif} oras://{image}", reply=True, timeout=TIMEOUT_S)
    assert reply["content"]["status"] == "ok", reply
    with BreakingProxy(registry.port, limit=400_000, is_stalling=True) as proxy:
        msg_id = client.execute(
            f"%apptainer pull --disable-cache new.sif oras://{image.replace(registry.host, proxy.host)}"
        )
        shown: dict[str, list[str]] = {"display_data": [], "update_display_data": []}
        # The bar that the engine draws while it waits.
        while not any(re.search(r" 0\.[1-9] of ", line) for lines in shown.values() for line in lines):
            message = client.get_iopub_msg(timeout=TIMEOUT_S)
            if message["parent_header"]["msg_id"] == msg_id and message["msg_type"] in shown:
                shown[message["msg_type"]].append(message["content"]["data"]["text/plain"])
        client.interrupt()  # type: ignore[attr-defined]  # see the fixture
        reply = client.get_shell_msg(timeout=TIMEOUT_S)
    assert reply["parent_header"]["msg_id"] == msg_id
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    assert len(shown["display_data"]) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_is_drawn_again_and_again_is_one_output(client: BlockingKernelClient, starter_image: Path) -> None:
    draw = 'import sys; [sys.stderr.write(f"\\r{i} %") for i in range(101)]; print("\\ndone", file=sys.stderr)'
    outputs: list[str] = []
    updates: list[str] = []

    def hook(message: dict[str, object]) -> None:
        content = message["content"]
        assert isinstance(content, dict)
        if message["msg_type"] == "display_data":
            outputs.append(content["data"]["text/plain"])
        elif message["msg_type"] == "update_display_data":
            updates.append(content["data"]["text/plain"])

    line = f"%apptainer exec {starter_image} python3 -c '{draw}'"
    reply = client.execute_interactive(line, timeout=TIMEOUT_S, output_hook=hook)
    assert reply["content"]["status"] == "ok", reply
    assert len(outputs) == 1
    assert [*outputs, *updates][-1] == "100 %"


def test_an_error_is_a_message_and_no_traceback(client: BlockingKernelClient) -> None:
    reply = client.execute("%apptainer exce", reply=True, timeout=TIMEOUT_S)
    assert reply["content"]["ename"] == "SpecError"
    assert reply["content"]["traceback"] == ["SpecError: there is no command 'exce'\nHint: did you mean `exec`?"]
    assert client.execute("x = 1", reply=True, timeout=TIMEOUT_S)["content"]["status"] == "ok"


def test_a_terminal_shows_and_interrupts_as_the_engine_itself_does(engine: EngineInfo, starter_image: Path) -> None:
    arguments = ["-m", "IPython", "--no-banner", "--simple-prompt", "--colors=NoColor"]
    terminal = pexpect.spawn(sys.executable, arguments, encoding="utf-8", timeout=TIMEOUT_S, echo=False)
    try:
        terminal.expect(PROMPT)
        terminal.sendline("%load_ext jupyter_apptainer")
        terminal.expect(PROMPT)
        terminal.sendline(f"%apptainer exec {starter_image} sh -c 'echo begin; exec sleep 600'")
        terminal.expect("begin")
        terminal.sendintr()
        terminal.expect("KeyboardInterrupt")
        terminal.expect(PROMPT)
        terminal.sendline(f"%apptainer exec {starter_image} echo end")
        terminal.expect("end")
        # Nothing was assigned, so there is no empty `Out` behind it.
        terminal.expect(PROMPT)
        assert "Out" not in terminal.before
    finally:
        terminal.close(force=True)


# What a client without extensions, widgets and renderers of its own can make of it, as VS Code with a server.
_CELLS = {
    "%load_ext jupyter_apptainer": "",
    "%apptainer version": r"^\d+\.\d+",
    "%apptainer": r"^(kernel|image):? ",
    "found = %apptainer instance list\nfound": r"^NAME +STATE",
    "found = %apptainer --quiet instance list --json\n[type(found), type(found[0])]": r"^\[<class 'list'>, <class 'dict'>\]|^\[list, dict\]",
    "%apptainer --out text version\nprint(len(text.split()))": "^1\n$",
    "%apptainer instence list": "instance",
}


@pytest.mark.root  # the same for every user
def test_a_client_of_the_plain_protocol_gets_text_from_both_kernels(tmp_path: Path, starter_kernel: str) -> None:
    server = Server(tmp_path)
    try:
        container = server.start_kernel(starter_kernel)
        for kernel_id in (container, server.start_kernel("python3")):
            with Channels(server, kernel_id) as channels:
                for cell, pattern in _CELLS.items():
                    text = read_plain(channels, cell)
                    assert re.search(pattern, text, re.M), (kernel_id == container, cell, text)
                    assert ("Hint" in text) == ("instence" in cell)
    finally:
        server.end()


def read_plain(channels: Channels, cell: str) -> str:
    """Run a cell; returns what is shown of it. Nothing may need more than that."""
    msg_id = channels.execute(cell)
    shown: list[str] = []
    while True:
        message = channels.receive()
        if message["parent_header"].get("msg_id") != msg_id:
            continue
        content = message["content"]
        match message["msg_type"]:
            case "stream":
                shown.append(content["text"])
            case "execute_result" | "display_data" | "update_display_data":
                assert set(content["data"]) <= {"text/plain", "text/html"}
                shown.append(content["data"]["text/plain"])
            case "error":
                shown += content["traceback"]
            case "status" if content["execution_state"] == "idle":
                return "".join(shown)
            case kind:
                assert kind in ("status", "execute_input", "execute_reply")
