"""What a person sees of a kernel is what they know from a local one: input, help, outputs, shell, errors, subshells."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import TIMEOUT_S, RunningKernel, drain

pytestmark = pytest.mark.modes

Message = dict[str, Any]


@pytest.fixture
def kernel(shared_kernel: RunningKernel) -> RunningKernel:
    """The module's kernel, with nothing of the last test on its channels."""
    drain(shared_kernel.client)
    return shared_kernel


def get_reply(receive: Callable[..., Message], msg_id: str) -> Message:
    """Wait for the answer to a message of ours; returns its content."""
    while True:
        message = receive(timeout=TIMEOUT_S)
        if message["parent_header"].get("msg_id") == msg_id:
            content: Message = message["content"]
            return content


def send_control(kernel: RunningKernel, kind: str, **content: Any) -> Message:
    message = kernel.client.session.msg(kind, content)
    kernel.client.control_channel.send(message)
    return get_reply(kernel.client.get_control_msg, message["header"]["msg_id"])


# --- stdin


@pytest.mark.parametrize(
    ("call", "is_password"),
    [("input('Name: ')", False), ("__import__('getpass').getpass('Name: ')", True)],
    ids=["input", "getpass"],
)
def test_a_cell_asks_and_gets_an_answer(kernel: RunningKernel, call: str, is_password: bool) -> None:
    cell = kernel.client.execute(f"print('Hello', {call})", allow_stdin=True)
    request = kernel.client.get_stdin_msg(timeout=TIMEOUT_S)
    assert request["msg_type"] == "input_request"
    assert request["content"] == {"prompt": "Name: ", "password": is_password}
    kernel.client.input("Zoë")
    reply = kernel.finish(cell)
    assert (reply.status, reply.text) == ("ok", "Hello Zoë\n")


def test_a_client_without_stdin_gets_an_error_and_no_hang(kernel: RunningKernel) -> None:
    reply = kernel.finish(kernel.client.execute("input()", allow_stdin=False))
    assert (reply.status, reply.ename) == ("error", "StdinNotImplementedError")


def test_interrupt_ends_a_question(kernel: RunningKernel) -> None:
    cell = kernel.client.execute("input('never answered')", allow_stdin=True)
    kernel.client.get_stdin_msg(timeout=TIMEOUT_S)
    kernel.manager.interrupt_kernel()
    reply = kernel.finish(cell)
    assert (reply.ename, reply.errors) == ("KeyboardInterrupt", 1)
    assert kernel.value("1") == 1


# --- help while typing


def test_completion_knows_names_and_files_of_the_notebooks_folder(kernel: RunningKernel) -> None:
    (Path(kernel.value("__import__('os').getcwd()")) / "measurements.csv").touch()
    kernel.run("import numpy\nvery_long_name = 1")
    for code, expected in [
        ("very_lo", "very_long_name"),
        ("numpy.linsp", "numpy.linspace"),
        ("open('measur", "measurements.csv"),
    ]:
        content = get_reply(kernel.client.get_shell_msg, kernel.client.complete(code))
        assert any(expected.endswith(match.split("/")[-1]) for match in content["matches"]), (code, content)
        assert content["matches"], code


def test_inspection_shows_source_and_docstring(kernel: RunningKernel) -> None:
    kernel.run("def area(r: float) -> float:\n    'Area of a circle.'\n    return 3.14 * r * r")
    content = get_reply(kernel.client.get_shell_msg, kernel.client.inspect("area", detail_level=1))
    text = content["data"]["text/plain"]
    assert "Area of a circle." in text
    assert "return" in text


def test_history_holds_what_was_run(kernel: RunningKernel) -> None:
    code = f"'{uuid.uuid4()}'"
    kernel.run(code)
    message_id = kernel.client.history(raw=True, output=False, hist_access_type="tail", n=1)
    assert [entry[2] for entry in get_reply(kernel.client.get_shell_msg, message_id)["history"]] == [code]


# --- outputs


def test_rich_outputs_arrive_and_are_updated(kernel: RunningKernel) -> None:
    reply = kernel.run(
        "from IPython.display import HTML, Latex, SVG, JSON, display\n"
        "display(HTML('<b>x</b>')); display(Latex('$x$')); display(JSON({'a': [1]})); SVG('<svg/>')"
    )
    assert {"text/html", "text/latex", "application/json", "image/svg+xml"} <= set(reply.data)
    cell = kernel.client.execute("handle = display('first', display_id=True); handle.update('second')")
    while (message := kernel.client.get_iopub_msg(timeout=TIMEOUT_S))["msg_type"] != "update_display_data":
        pass
    assert message["content"]["data"]["text/plain"] == "'second'"
    assert kernel.finish(cell).status == "ok"


def test_a_plot_arrives_as_a_picture(kernel: RunningKernel) -> None:
    reply = kernel.run("%matplotlib inline\nimport matplotlib.pyplot as plt\n_ = plt.plot([1, 3, 2])")
    assert reply.status == "ok"
    assert base64.b64decode(reply.data["image/png"]).startswith(b"\x89PNG")


def test_fifty_megabytes_arrive_whole(kernel: RunningKernel) -> None:
    size = 50_000_000
    reply = kernel.run(f"print('x' * {size})")
    assert len(reply.text) == size + 1
    assert kernel.run(f"'y' * {size}").data["text/plain"].count("y") == size


def test_ten_thousand_lines_arrive_in_order(kernel: RunningKernel) -> None:
    reply = kernel.run("for i in range(10_000): print(i)")
    assert reply.text.split() == [str(i) for i in range(10_000)]


def test_unicode_passes_both_ways(kernel: RunningKernel) -> None:
    text = "naïve 漢字 😀 \u202eabc\u202c \u0000"
    assert kernel.run(f"größe = {text!r}; print(größe)").text == text + "\n"
    assert kernel.run("open('Übung 😀.txt', 'w').write('ü'); print(open('Übung 😀.txt').read())").text == "ü\n"


def test_output_of_programs_and_libraries_arrives(kernel: RunningKernel) -> None:
    reply = kernel.run(
        "import os, subprocess\nos.system('echo one')\nsubprocess.run(['echo', 'two'])\nos.write(1, b'three\\n')"
    )
    assert sorted(reply.text.split()) == ["one", "three", "two"]


# --- shell, folder, errors


def test_shell_commands_run_in_the_container(kernel: RunningKernel) -> None:
    assert kernel.run("!test -d /.singularity.d && echo inside").text.strip() == "inside"
    assert kernel.value("(lambda out: list(out))(get_ipython().getoutput('echo a; echo b'))") == ["a", "b"]
    assert kernel.run("%%bash\necho $((6 * 7))").text == "42\n"


def test_interrupt_ends_a_shell_command(kernel: RunningKernel) -> None:
    cell = kernel.begin("!echo begun; sleep 60")
    kernel.wait_text(cell, "begun")
    kernel.manager.interrupt_kernel()
    assert kernel.finish(cell, timeout_s=20).errors <= 1
    assert kernel.value("1") == 1


def test_traceback_names_the_file_and_it_can_be_opened(kernel: RunningKernel) -> None:
    folder = Path(kernel.value("__import__('os').getcwd()"))
    (folder / "broken.py").write_text("def fail():\n    raise ValueError('on purpose')\n")
    cell = kernel.client.execute("import broken\nbroken.fail()")
    while (message := kernel.client.get_iopub_msg(timeout=TIMEOUT_S))["msg_type"] != "error":
        pass
    assert kernel.finish(cell).status == "error"
    assert message["content"]["evalue"] == "on purpose"
    assert "broken.py" in "".join(message["content"]["traceback"])
    for path in ("broken.py", str(folder / "broken.py")):
        assert kernel.manager.resolve_path(path) == str(folder / "broken.py")
    assert kernel.manager.resolve_path(kernel.value("__import__('numpy').__file__")) is None, "it is in the image"


# --- the kernel about itself


def test_kernel_info_is_the_images(kernel: RunningKernel) -> None:
    content = get_reply(kernel.client.get_shell_msg, kernel.client.kernel_info())
    assert content["implementation"] == "ipython"
    assert content["language_info"]["version"] == kernel.value("__import__('platform').python_version()")
    assert {"debugger", "kernel subshells"} <= set(content["supported_features"])
    assert kernel.manager.is_alive()
    assert kernel.client.is_alive()


def test_usage_counts_the_kernel_and_its_programs(kernel: RunningKernel) -> None:
    content = send_control(kernel, "usage_request")
    assert content["pid"] == kernel.value("__import__('os').getpid()")
    assert 20e6 < content["kernel_memory"] < 2e9
    assert content["kernel_cpu"] >= 0


@pytest.mark.parametrize("command", ["pip install six", "pip uninstall -y numpy", "uv pip install six"])
def test_installing_into_a_read_only_image_is_answered_with_the_way_out(kernel: RunningKernel, command: str) -> None:
    reply = kernel.run(f"%{command}")
    assert reply.status == "error"
    assert "the image is read-only" in reply.text
    assert "--overlay auto" in reply.text


def test_other_commands_of_pip_work_in_a_read_only_image(kernel: RunningKernel, tmp_path: Path) -> None:
    assert "ipykernel" in kernel.run("%pip list").text
    # A folder that can be written to is not the image's business; there is just no such package.
    reply = kernel.run(f"%pip install --no-index --target {tmp_path} no-such-package")
    assert "No matching distribution" in reply.text


# --- subshells


def test_a_subshell_answers_while_the_main_shell_is_busy(kernel: RunningKernel) -> None:
    subshell = send_control(kernel, "create_subshell_request")["subshell_id"]
    assert send_control(kernel, "list_subshell_request")["subshell_id"] == [subshell]
    cell = kernel.begin("import threading\ngate = threading.Event()\nprint('begun', flush=True)\nprint(gate.wait(60))")
    kernel.wait_text(cell, "begun")
    message = kernel.client.session.msg("execute_request", {"code": "gate.set()", "silent": False})
    message["header"]["subshell_id"] = subshell
    kernel.client.shell_channel.send(message)
    replies: dict[str, str] = {}
    while len(replies) < 2:
        reply = kernel.client.get_shell_msg(timeout=TIMEOUT_S)
        replies[reply["parent_header"]["msg_id"]] = reply["content"]["status"]
    assert replies == {cell: "ok", message["header"]["msg_id"]: "ok"}
    assert send_control(kernel, "delete_subshell_request", subshell_id=subshell)["status"] == "ok"
