"""JupyterLab's debugger works in a container as on the host: breakpoints in cells, variables, stepping, files of the folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import TIMEOUT_S, RunningKernel

pytestmark = pytest.mark.modes

Message = dict[str, Any]
CELL = "def double(number):\n    result = 2 * number\n    return result\n\nprint(double(21))"


@dataclass
class Debugger:
    """What JupyterLab's debugger does with a kernel: requests on control, events on iopub."""

    kernel: RunningKernel
    sequence: int = 0

    def ask(self, command: str, **arguments: Any) -> Message:
        """Send a request and return the reply's content."""
        self.sequence += 1
        content = {"type": "request", "seq": self.sequence, "command": command, "arguments": arguments}
        message = self.kernel.client.session.msg("debug_request", content)
        self.kernel.client.control_channel.send(message)
        while True:
            reply = self.kernel.client.get_control_msg(timeout=TIMEOUT_S)
            if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                found: Message = reply["content"]
                return found

    def get_body(self, command: str, **arguments: Any) -> Message:
        reply = self.ask(command, **arguments)
        assert reply["success"], reply
        body: Message = reply.get("body") or {}
        return body

    def wait_event(self, name: str) -> Message:
        """Wait for an event of debugpy's."""
        while True:
            message = self.kernel.client.get_iopub_msg(timeout=TIMEOUT_S)
            if message["msg_type"] == "debug_event" and message["content"]["event"] == name:
                body: Message = message["content"].get("body", {})
                return body

    def start(self) -> None:
        self.get_body(
            "initialize",
            clientID="test",
            clientName="test",
            adapterID="",
            pathFormat="path",
            linesStartAt1=True,
            columnsStartAt1=True,
            supportsVariableType=True,
        )
        self.get_body("attach")
        self.wait_event("initialized")

    def set_breakpoints(self, path: str, *lines: int) -> list[bool]:
        body = self.get_body(
            "setBreakpoints",
            source={"path": path},
            breakpoints=[{"line": line} for line in lines],
            sourceModified=False,
        )
        self.get_body("configurationDone")
        return [found["verified"] for found in body["breakpoints"]]

    def get_frames(self, thread: int) -> list[Message]:
        frames: list[Message] = self.get_body("stackTrace", threadId=thread)["stackFrames"]
        return frames

    def get_variables(self, frame: int) -> dict[str, str]:
        (scope,) = [s for s in self.get_body("scopes", frameId=frame)["scopes"] if s["name"] == "Locals"]
        found = self.get_body("variables", variablesReference=scope["variablesReference"])["variables"]
        return {variable["name"]: variable["value"] for variable in found}


@pytest.fixture
def debugger(kernel: RunningKernel) -> Debugger:
    """A debugger attached to a kernel of its own: it leaves files in the kernel's /tmp."""
    debugger = Debugger(kernel)
    debugger.start()
    return debugger


def test_a_cell_stops_steps_and_goes_on(debugger: Debugger, kernel: RunningKernel) -> None:
    path = debugger.get_body("dumpCell", code=CELL)["sourcePath"]
    assert debugger.set_breakpoints(path, 2) == [True]
    cell = kernel.client.execute(CELL)
    stopped = debugger.wait_event("stopped")
    assert stopped["reason"] == "breakpoint"
    thread = stopped["threadId"]
    frames = debugger.get_frames(thread)
    assert [(frame["name"], frame["source"]["path"], frame["line"]) for frame in frames] == [
        ("double", path, 2),
        ("<module>", path, 5),
    ]
    assert debugger.get_variables(frames[0]["id"])["number"] == "21"
    debugger.get_body("next", threadId=thread)
    assert debugger.wait_event("stopped")["reason"] == "step"
    assert debugger.get_variables(debugger.get_frames(thread)[0]["id"])["result"] == "42"
    debugger.get_body("continue", threadId=thread)
    reply = kernel.finish(cell)
    assert (reply.status, reply.text) == ("ok", "42\n")
    assert debugger.get_body("disconnect", restart=False, terminateDebuggee=False) == {}
    assert kernel.value("double(1)") == 2


def test_a_cells_source_has_one_path_that_the_host_can_open(debugger: Debugger, kernel: RunningKernel) -> None:
    path = debugger.get_body("dumpCell", code=CELL)["sourcePath"]
    assert debugger.get_body("dumpCell", code=CELL)["sourcePath"] == path
    info = debugger.get_body("debugInfo")
    assert path.startswith(info["tmpFilePrefix"])
    assert debugger.get_body("source", source={"path": path})["content"] == CELL
    on_host = kernel.manager.resolve_path(path)
    assert on_host is not None
    assert Path(on_host).read_text() == CELL


def test_a_breakpoint_in_a_module_of_the_notebooks_folder(
    debugger: Debugger, kernel: RunningKernel, tmp_path: Path
) -> None:
    module = tmp_path / "module.py"
    module.write_text(CELL)
    debugger.set_breakpoints(str(module), 3)
    cell = kernel.client.execute("import module")
    thread = debugger.wait_event("stopped")["threadId"]
    frame = debugger.get_frames(thread)[0]
    assert (frame["source"]["path"], frame["line"]) == (str(module), 3)
    assert debugger.get_variables(frame["id"]) == {"number": "21", "result": "42"}
    debugger.get_body("continue", threadId=thread)
    assert kernel.finish(cell).status == "ok"


def test_the_variable_list_without_a_stop(debugger: Debugger, kernel: RunningKernel) -> None:
    kernel.run("answer = 42")
    found = {v["name"]: v["value"] for v in debugger.get_body("inspectVariables")["variables"]}
    assert found["answer"] == "42"
    assert debugger.get_body("richInspectVariables", variableName="answer")["data"] == {"text/plain": "42"}


def test_debugpy_is_loaded_when_somebody_debugs(kernel: RunningKernel) -> None:
    loaded = "'debugpy' in __import__('sys').modules"
    assert kernel.value(loaded) is False
    debugger = Debugger(kernel)
    # JupyterLab asks for that when a notebook is opened.
    assert debugger.get_body("debugInfo")["isStarted"] is False
    assert kernel.value(loaded) is False
    kernel.run("answer = 42")
    found = {v["name"]: v["value"] for v in debugger.get_body("inspectVariables")["variables"]}
    assert (found["answer"], kernel.value(loaded)) == ("42", True)
    debugger.start()
    path = debugger.get_body("dumpCell", code=CELL)["sourcePath"]
    assert debugger.set_breakpoints(path, 2) == [True]
    cell = kernel.client.execute(CELL)
    thread = debugger.wait_event("stopped")["threadId"]
    assert [frame["name"] for frame in debugger.get_frames(thread)] == ["double", "<module>"]
    debugger.get_body("continue", threadId=thread)
    assert kernel.finish(cell).text == "42\n"


def test_a_stopped_cell_can_be_restarted_away(debugger: Debugger, kernel: RunningKernel) -> None:
    path = debugger.get_body("dumpCell", code=CELL)["sourcePath"]
    debugger.set_breakpoints(path, 2)
    kernel.client.execute(CELL)
    debugger.wait_event("stopped")
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=TIMEOUT_S)
    assert kernel.value("1") == 1
    again = Debugger(kernel)
    again.start()
    assert again.get_body("debugInfo")["isStarted"]
