"""Tasks on disk: a folder for each, with its state in `task.json` and all that it printed in `log`, modes 0700 and 0600.

The worker is the only one who writes a task's state. One whose worker is gone without an end is read as failed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import ApptainerConfig
from ..engine.lock import hold_lock
from ..errors import TaskConflict, TaskLost, TaskNotFound
from ..places import Places, write_private_file
from .model import Task

STATE_FILE, LOG_FILE = "task.json", "log"
KEPT_DAYS, KEPT_TASKS = 14.0, 200
_LOCK = "start.lock"
_ID = re.compile(r"[0-9a-f]{8}")
# How long a task may be without a worker: the one that starts it holds a lock for less than a second.
_START_S = 60.0
_PART_BYTES = 256 * 1024


@dataclass(frozen=True)
class LogPart:
    """Some of a log. next_offset: where the next part begins, in bytes."""

    text: str
    next_offset: int


def find_folder(places: Places, task_id: str) -> Path:
    """Return the folder of a task. Raises TaskNotFound for what cannot be the name of one."""
    if not _ID.fullmatch(task_id):
        raise _not_found(task_id)
    return places.tasks / task_id


def lock_tasks(places: Places) -> AbstractContextManager[None]:
    """Let nobody else start a task meanwhile."""
    return hold_lock(places.tasks / _LOCK)


def save_task(places: Places, task: Task) -> None:
    """Write or replace the state; readers see the old or the new, never a part."""
    write_private_file(find_folder(places, task.id) / STATE_FILE, json.dumps(task.to_json(), ensure_ascii=False))


def load_task(places: Places, task_id: str) -> Task | None:
    """Read one task; None where there is none."""
    try:
        task = Task.from_json(json.loads((find_folder(places, task_id) / STATE_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if task.id != task_id:
        return None
    return _describe_loss(task) if is_lost(task) else task


def get_task(places: Places, task_id: str) -> Task:
    """Return one task, by its id or the beginning of one. Raises TaskNotFound."""
    if re.fullmatch(r"[0-9a-f]{1,7}", task_id):
        found = [task for task in iter_tasks(places) if task.id.startswith(task_id)]
        if len(found) == 1:
            return found[0]
    task = load_task(places, task_id) if _ID.fullmatch(task_id) else None
    if task is None:
        raise _not_found(task_id)
    return task


def list_ids(places: Places) -> list[str]:
    """Return the names of all tasks of this host, in no order."""
    try:
        return [name for name in os.listdir(places.tasks) if _ID.fullmatch(name)]
    except OSError:
        return []


def iter_tasks(places: Places) -> Iterator[Task]:
    """Yield all tasks of this host, newest first."""
    tasks = [task for name in list_ids(places) if (task := load_task(places, name))]
    yield from sorted(tasks, key=lambda task: (task.created_at, task.id), reverse=True)


def read_log(places: Places, task_id: str, offset: int = 0, limit: int = _PART_BYTES) -> LogPart:
    """Return the log from `offset` on, at most `limit` bytes; an offset behind the end gives nothing.

    Raises TaskNotFound. A character is never cut: what is not whole yet comes with the next part.
    """
    path = find_folder(places, task_id) / LOG_FILE
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, offset))
            data = stream.read(limit)
    except FileNotFoundError:
        raise _not_found(task_id) from None
    whole = _cut_whole(data)
    return LogPart(whole.decode("utf-8", "replace"), max(0, offset) + len(whole))


def is_lost(task: Task) -> bool:
    """Say whether the task's process is gone and has not said how it ended."""
    if task.is_over:
        return False
    if task.worker is None:
        return time.time() - task.created_at > _START_S
    return not task.worker.is_alive()


def forget_task(places: Places, task_id: str) -> None:
    """Remove the record of a task that is over; what it made stays. Raises TaskNotFound, and TaskConflict while it is active."""
    task = get_task(places, task_id)
    if not task.is_over:
        raise TaskConflict(
            f"the task {task.id} is not over", hint=f"`jupyter apptainer tasks cancel {task.id}` ends it"
        )
    shutil.rmtree(find_folder(places, task.id), ignore_errors=True)


def clean_tasks(places: Places, *, older_than_s: float = KEPT_DAYS * 86400, kept: int = KEPT_TASKS) -> list[Task]:
    """Remove the records of tasks that ended long ago, and the oldest beyond `kept`; return which. What they made stays."""
    over = [task for task in iter_tasks(places) if task.is_over]
    now = time.time()
    old = [
        task
        for index, task in enumerate(over)
        if index >= kept or now - (task.ended_at or task.created_at) >= older_than_s
    ]
    for task in old:
        shutil.rmtree(find_folder(places, task.id), ignore_errors=True)
    return old


def clean_old_tasks(places: Places, settings: ApptainerConfig) -> list[Task]:
    """Remove the records that the settings do not keep; return which."""
    return clean_tasks(places, older_than_s=settings.task_kept_days * 86400, kept=settings.task_kept_count)


def _describe_loss(task: Task) -> Task:
    error = TaskLost(
        f"the process of the task `{task.spec.title}` is gone",
        hint=f"repeat it: `jupyter apptainer tasks retry {task.id}`",
    )
    return replace(task, state="failed", error=error.to_json(), ended_at=task.started_at or task.created_at)


def _not_found(task_id: str) -> TaskNotFound:
    return TaskNotFound(f"there is no task {task_id!r}")


def _cut_whole(data: bytes) -> bytes:
    """Leave out a character at the end that is not complete; it has at most four bytes."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        width = 1 if byte < 0x80 else 2 if byte >> 5 == 6 else 3 if byte >> 4 == 14 else 4 if byte >> 3 == 30 else 1
        return data if width <= back else data[:-back]
    return data
