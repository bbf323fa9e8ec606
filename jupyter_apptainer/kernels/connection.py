"""How clients reach the kernel: sockets in a folder of ours, or encrypted ports; and when it can be reached.

The kernel gets a twin of the client's connection file in its own folder. An ipykernel that can't see the file it was given
makes one with ports of its own and waits for ever, so the twin's folder is always bound, at the same path.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import AttachError
from ..instances.watch import DirectoryWatch, wait_readable, watch_exit
from ..places import MAX_SOCKET_PATH, write_private_file
from .adopted import EngineProcess

CHANNELS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
# Longest number that jupyter_client appends to the path of an ipc socket, with its dash.
_LONGEST_SUFFIX = len("-65535")
_TCP_RETRY_S = 0.02


def build_ipc_prefix(private_dir: str) -> str:
    """Return the `ip` of an ipc connection: a path to which jupyter_client appends "-1", "-2", …"""
    return os.path.join(private_dir, "k")


def fits_socket(private_dir: str) -> bool:
    """Say whether sockets in the folder have a path that the kernel accepts (unix(7): 107 bytes)."""
    return len(os.fsencode(build_ipc_prefix(private_dir))) + _LONGEST_SUFFIX <= MAX_SOCKET_PATH


def write_twin(path: str, connection: Mapping[str, Any]) -> None:
    """Write the connection file that the kernel will read, mode 0600. Byte values (keys) become text."""
    content = {name: value.decode() if isinstance(value, bytes) else value for name, value in connection.items()}
    write_private_file(Path(path), json.dumps(content, indent=2))


def read_twin(path: str) -> dict[str, Any]:
    """Read the connection file of a running kernel. Raises AttachError where that cannot be."""
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise AttachError(f"the connection file {path} of the running kernel cannot be read: {error}") from error
    return dict(content)


def list_sockets(connection: Mapping[str, Any]) -> list[str]:
    """Return the paths of the connection's sockets; empty for tcp."""
    if connection.get("transport") != "ipc":
        return []
    return [f"{connection['ip']}-{connection[channel]}" for channel in CHANNELS]


def remove_sockets(connection: Mapping[str, Any]) -> None:
    """Remove sockets that an earlier kernel left: they would look like a kernel that listens."""
    for path in list_sockets(connection):
        if os.path.exists(path):
            os.unlink(path)


async def wait_listening(connection: Mapping[str, Any], process: EngineProcess, timeout_s: float) -> bool:
    """Wait until the kernel listens on all its channels; False where it ends or `timeout_s` seconds pass before that."""
    deadline = time.monotonic() + timeout_s
    with watch_exit(process.pid) as ended:
        if connection.get("transport") == "ipc":
            return await _wait_sockets(connection, process, ended, deadline)
        return await _wait_ports(connection, process, ended, deadline)


async def _wait_sockets(connection: Mapping[str, Any], process: EngineProcess, ended: int, deadline: float) -> bool:
    wanted = list_sockets(connection)
    with DirectoryWatch(os.path.dirname(wanted[0])) as watch:
        while not all(os.path.exists(path) for path in wanted):
            left = deadline - time.monotonic()
            if left <= 0 or process.poll() is not None:
                return False
            await wait_readable([watch.fileno(), ended], left)
            watch.drain()
    return process.poll() is None


async def _wait_ports(connection: Mapping[str, Any], process: EngineProcess, ended: int, deadline: float) -> bool:
    # Nothing tells when a port begins to listen, so it is tried; the heartbeat's is the last that ipykernel binds.
    while time.monotonic() < deadline and process.poll() is None:
        try:
            _, writer = await asyncio.open_connection(connection["ip"], connection["hb_port"])
        except OSError:
            await wait_readable([ended], _TCP_RETRY_S)
            continue
        writer.close()
        return True
    return False
