"""Comms both ways, with their buffers, and widgets that live on them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.conftest import TIMEOUT_S, RunningKernel, drain

Message = dict[str, Any]


@pytest.fixture
def kernel(shared_kernel: RunningKernel) -> RunningKernel:
    """The module's kernel, with nothing of the last test on its channels."""
    drain(shared_kernel.client)
    return shared_kernel


def send(kernel: RunningKernel, kind: str, buffers: list[bytes] | None = None, **content: Any) -> None:
    message = kernel.client.session.msg(kind, content)
    message["buffers"] = buffers or []
    kernel.client.shell_channel.send(message)


def wait_message(kernel: RunningKernel, kind: str, comm_id: str) -> Message:
    while True:
        message: Message = kernel.client.get_iopub_msg(timeout=TIMEOUT_S)
        if message["msg_type"] == kind and message["content"]["comm_id"] == comm_id:
            return message


def test_a_comm_that_the_client_opens(kernel: RunningKernel) -> None:
    kernel.run(
        "def opened(comm, message):\n"
        "    comm.on_msg(lambda m: comm.send({'twice': m['content']['data']['n'] * 2}, buffers=[bytes(m['buffers'][0])[::-1]]))\n"
        "    comm.on_close(lambda m: closed.append(comm.comm_id))\n"
        "    comm.send({'hello': message['content']['data']})\n"
        "closed = []\n"
        "get_ipython().kernel.comm_manager.register_target('echo', opened)"
    )
    send(kernel, "comm_open", comm_id="one", target_name="echo", data={"from": "client"})
    assert wait_message(kernel, "comm_msg", "one")["content"]["data"] == {"hello": {"from": "client"}}
    send(kernel, "comm_msg", [b"\x00\x01\xff"], comm_id="one", data={"n": 21})
    answer = wait_message(kernel, "comm_msg", "one")
    assert answer["content"]["data"] == {"twice": 42}
    assert [bytes(buffer) for buffer in answer["buffers"]] == [b"\xff\x01\x00"]
    send(kernel, "comm_close", comm_id="one", data={})
    assert kernel.value("closed") == ["one"]


def test_a_comm_without_a_target_is_closed(kernel: RunningKernel) -> None:
    send(kernel, "comm_open", comm_id="lost", target_name="nobody", data={})
    wait_message(kernel, "comm_close", "lost")


def test_a_slider_calls_back_and_the_kernel_moves_it(kernel: RunningKernel) -> None:
    reply = kernel.run(
        "import ipywidgets\nseen = []\nslider = ipywidgets.IntSlider(value=1)\n"
        "slider.observe(lambda change: seen.append((change.old, change.new)), 'value')\nslider"
    )
    assert reply.status == "ok"
    model = reply.data["application/vnd.jupyter.widget-view+json"]["model_id"]
    assert model == kernel.value("slider.model_id")
    send(kernel, "comm_msg", comm_id=model, data={"method": "update", "state": {"value": 7}, "buffer_paths": []})
    assert kernel.value("[seen, slider.value]") == [[[1, 7]], 7]
    kernel.client.execute("slider.value = 50")
    while (data := wait_message(kernel, "comm_msg", model)["content"]["data"])["method"] != "update":
        pass
    assert data["state"] == {"value": 50}


def test_a_buttons_output_lands_in_its_output_widget(kernel: RunningKernel) -> None:
    kernel.run(
        "import ipywidgets\nout = ipywidgets.Output()\nbutton = ipywidgets.Button()\n"
        "@out.capture()\ndef clicked(_):\n    print('clicked')\nbutton.on_click(clicked)"
    )
    output, model = kernel.value("[out.model_id, button.model_id]")
    send(kernel, "comm_msg", comm_id=model, data={"method": "custom", "content": {"event": "click"}})
    # The front end catches what is printed while the widget names the message's id.
    state = wait_message(kernel, "comm_msg", output)["content"]["data"]["state"]
    while (message := kernel.client.get_iopub_msg(timeout=TIMEOUT_S))["msg_type"] != "stream":
        pass
    assert message["content"]["text"] == "clicked\n"
    assert message["parent_header"]["msg_id"] == state["msg_id"]
