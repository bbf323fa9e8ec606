"""What is heard of cells on a kernel's output channel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zmq
from jupyter_client.session import Session

from jupyter_apptainer.kernels.iopub import IopubListener

TIMEOUT_MS = 20_000


def test_after_the_first_message_only_beginnings_are_heard_and_a_welcome_is_none(tmp_path: Path) -> None:
    session = Session(key=b"key")
    connection = {"transport": "ipc", "ip": str(tmp_path / "k"), "iopub_port": 1}
    with zmq.Context() as context, context.socket(zmq.XPUB) as kernel:
        kernel.linger = 0
        kernel.bind(f"ipc://{tmp_path}/k-1")

        def heed() -> bytes:
            assert kernel.poll(TIMEOUT_MS)
            return kernel.recv()

        def say(kind: str, *, topic: str = "", parent: dict[str, Any] | None = None) -> None:
            session.send(kernel, kind, {}, parent=parent, ident=f"kernel.id.{topic or kind}".encode())

        def hear(listener: IopubListener) -> None:
            assert listener.socket.poll(TIMEOUT_MS)
            assert listener.drain()

        with IopubListener(connection) as listener:
            assert {heed(), heed()} == {b"\1kernel.", b"\1kernel_core."}
            say("status")
            hear(listener)
            assert listener.cell == {}
            assert [heed() for _ in range(3)] == [b"\1kernel.id.execute_input", b"\0kernel.", b"\0kernel_core."]
            request = session.msg("execute_request")
            say("execute_input", parent=request)
            hear(listener)
            assert listener.cell["msg_id"] == request["msg_id"]
            # Nobody hears this one.
            say("status")
            say("iopub_welcome", topic="execute_input")
            hear(listener)
            assert listener.cell["msg_id"] == request["msg_id"]
