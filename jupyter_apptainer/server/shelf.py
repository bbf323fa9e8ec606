"""What clients see of tasks. A list may have hundreds: those that are over are read and encoded once, and kept as text."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from ..images.reference import parse_reference
from ..places import Places
from ..tasks.model import Task
from ..tasks.store import STATE_FILE, list_ids, load_task
from .api import encode


class _Row(NamedTuple):
    """One task. version: of its file, which is replaced and never written to."""

    version: tuple[int, int, int]
    created_at: float
    task_id: str
    text: str


class TaskShelf:
    """The tasks of this host. For one thread at a time."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._over: dict[str, _Row] = {}

    def encode_all(self) -> str:
        """Return all of them as JSON, newest first."""
        rows: list[_Row] = []
        over: dict[str, _Row] = {}
        for task_id in list_ids(self._places):
            version = self._read_version(task_id)
            row = self._over.get(task_id)
            if row is None or row.version != version:
                task = load_task(self._places, task_id)
                if task is None or version is None:
                    continue
                row = _Row(version, task.created_at, task_id, encode(to_json(task)))
                if not task.is_over:
                    rows.append(row)
                    continue
            over[task_id] = row
            rows.append(row)
        self._over = over
        rows.sort(key=lambda row: (row.created_at, row.task_id), reverse=True)
        return f"[{', '.join(row.text for row in rows)}]"

    def _read_version(self, task_id: str) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self._places.tasks / task_id / STATE_FILE)
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


def to_json(task: Task) -> dict[str, Any]:
    """Return what clients see of a task: not how it is done, but which registry wants a password."""
    hidden = ("work", "worker", "fingerprint", "cwd", "made")
    shown = {name: value for name, value in task.to_json().items() if name not in hidden}
    uri = task.spec.args.get("uri") if task.state == "needs-auth" else None
    return {**shown, "registry": parse_reference(uri).host if uri else None}
