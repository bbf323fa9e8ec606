"""Whether messages between client and kernel are signed.

On a port a signature keeps other users of the machine out. Nobody but the user gets as far as a socket in a folder with mode 0700, where the
key itself lies too, so that there a signature proves nothing, and costs both sides time. An empty key is the protocol's way to say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..images.probe import is_python_command

_LAUNCHER = "ipykernel_launcher"


def stop_signing(manager: Any, command: Sequence[str]) -> None:
    """Have a kernel that is reached through sockets of ours, and its clients, sign nothing; called before its connection file is written.

    It stays as it is for kernels that are no ipykernel, which may take an empty key for a mistake, and where somebody has chosen a key or shares
    it with other kernels.
    """
    if is_python_command(command) and _LAUNCHER in command and _has_own_key(manager):
        manager.session.key = b""


def _has_own_key(manager: Any) -> bool:
    chosen = manager.session.config.get("Session", {})
    return manager.session.parent is manager and not {"key", "keyfile"} & set(chosen)
