"""Shut a kernel down through the Jupyter server that has it: a kernel that is only ended, that server would start anew."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote, urlsplit

from jupyter_core.paths import jupyter_runtime_dir

from ..instances.model import LedgerEntry

_TIMEOUT_S = 30.0


def shut_down_by_server(entry: LedgerEntry) -> bool:
    """Ask the server that owns the kernel; False where the owner is no server, or does not let us."""
    if not entry.owner.is_alive() or entry.is_spare:
        return False
    record = _load_record(entry.owner.pid)
    url, token = str(record.get("url") or ""), str(record.get("token") or "")
    if urlsplit(url).scheme not in ("http", "https"):
        # None, or one that listens on a socket.
        return False
    request = urllib.request.Request(
        f"{url.rstrip('/')}/api/kernels/{quote(entry.kernel_id)}",
        method="DELETE",
        headers={"Authorization": f"token {token}"},
    )
    # The server is on this machine, whatever a proxy in the environment is for.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as answer:
            return int(answer.status) == 204
    except (urllib.error.URLError, OSError):
        return False


def _load_record(pid: int) -> dict[str, object]:
    """Read what a server tells the programs of its own user about itself."""
    try:
        record = json.loads(Path(jupyter_runtime_dir(), f"jpserver-{pid}.json").read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and record.get("pid") == pid and _is_ours(pid) else {}


def _is_ours(pid: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}").st_uid == os.getuid()
    except OSError:
        return False
