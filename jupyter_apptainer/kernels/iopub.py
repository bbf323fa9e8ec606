"""The kernel's output channel, from the side: which cell runs, and a last word to it after the kernel's end.

A message says which request it belongs to, or front ends show it nowhere. So we hear of each cell that begins, and when the
kernel is gone, take its place on the channel for the moment that one message needs; clients reconnect by themselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import zmq

_DELIMITER = b"<IDS|MSG>"
# ipykernel's and xeus' names for messages about cells. What cells print has other topics, and is not sent to us.
_TOPICS = (b"kernel.", b"kernel_core.")
_TOPIC = re.compile(rb"(kernel(?:_core)?\.[^.]+\.)[a-z_]+")
_BEGIN = b"execute_input"
_QUOTED_BEGIN = b'"execute_input"'
# Short messages; we may look seldom.
_QUEUE = 100_000
# libzmq tries again every 0.1 to 0.2 s; on a busy machine it took 1.5 s and more.
_RECONNECT_S = 4.0
_QUIET_S = 0.25


class IopubListener:
    """Follows the status of one kernel. Used and closed by one thread."""

    def __init__(self, connection: Mapping[str, Any]) -> None:
        self._connection = connection
        self._context = zmq.Context()
        self._is_narrow = False
        self._last_begin: Sequence[bytes] = ()
        self.socket: zmq.Socket[bytes] = self._context.socket(zmq.SUB)
        if connection.get("curve_publickey"):
            self.socket.curve_publickey, self.socket.curve_secretkey = zmq.curve_keypair()
            self.socket.curve_serverkey = _to_bytes(connection["curve_publickey"])
        self.socket.rcvhwm = _QUEUE
        for topic in _TOPICS:
            self.socket.setsockopt(zmq.SUBSCRIBE, topic)
        self.socket.connect(self._url)

    @property
    def _url(self) -> str:
        ip, port = self._connection["ip"], self._connection["iopub_port"]
        return f"ipc://{ip}-{port}" if self._connection.get("transport") == "ipc" else f"tcp://{ip}:{port}"

    @property
    def cell(self) -> dict[str, Any]:
        """The header of the request whose cell has begun last; empty where none has, or the protocol is not the one that we know."""
        try:
            parent = json.loads(_get_part(self._last_begin, 1))
        except ValueError:
            return {}
        return parent if isinstance(parent, dict) else {}

    def drain(self) -> bool:
        """Take note of all that has come; returns whether there was anything."""
        count = 0
        while self.socket.poll(0):
            self._note(self.socket.recv_multipart())
            count += 1
        return count > 0

    def _note(self, frames: Sequence[bytes]) -> None:
        topic = frames[0]
        # Who subscribes to a topic gets a welcome under it, which is of another type.
        if topic.endswith(_BEGIN) and _QUOTED_BEGIN in _get_part(frames, 0):
            self._last_begin = frames
        found = _TOPIC.fullmatch(topic)
        if found and not self._is_narrow:
            self._narrow(found[1] + _BEGIN)

    def _narrow(self, topic: bytes) -> None:
        """Hear one message of each cell and not three, as all cost kernel and client time. The topic has a name that only its kernel knows."""
        self.socket.setsockopt(zmq.SUBSCRIBE, topic)
        for broad in _TOPICS:
            self.socket.setsockopt(zmq.UNSUBSCRIBE, broad)
        self._is_narrow = True

    def speak_for_the_dead(self, text: str) -> bool:
        """Send `text` as standard error of the cell that ran; False where nobody listened. Only when the kernel has ended."""
        # Slow to import, and hardly ever needed.
        from jupyter_client.session import Session

        session = Session(signature_scheme=self._connection.get("signature_scheme") or "hmac-sha256")
        # Not as an argument: an empty one, for no signatures, makes it warn.
        session.key = _to_bytes(self._connection.get("key") or b"")
        # Or we would be the first of our own listeners.
        self.socket.close(linger=0)
        with self._context.socket(zmq.XPUB) as channel:
            channel.linger = int(_QUIET_S * 1000)
            channel.setsockopt(zmq.XPUB_VERBOSE, 1)
            if self._connection.get("curve_secretkey"):
                channel.curve_server = True
                channel.curve_publickey = _to_bytes(self._connection["curve_publickey"])
                channel.curve_secretkey = _to_bytes(self._connection["curve_secretkey"])
            channel.bind(self._url)
            if not channel.poll(int(_RECONNECT_S * 1000)):
                return False
            while channel.poll(int(_QUIET_S * 1000)):
                channel.recv()
            session.send(
                channel, "stream", {"name": "stderr", "text": text}, parent=self.cell or None, ident=b"stream.stderr"
            )
        return True

    def __enter__(self) -> IopubListener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close(linger=0)
        # Waits for what the channel still has to send, if there was one.
        self._context.term()


def _get_part(frames: Sequence[bytes], number: int) -> bytes:
    """Return a message's header (0) or that of its request (1); empty where it is no message that we know."""
    try:
        return frames[frames.index(_DELIMITER) + 2 + number]
    except (ValueError, IndexError):
        return b""


def _to_bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
