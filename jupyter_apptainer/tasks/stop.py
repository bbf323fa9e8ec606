"""Cancel tasks, and end what a worker that was killed has left running."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from ..errors import TaskCancelled
from ..instances.process import ProcessIdentity, iter_stats
from ..places import Places
from .model import Task
from .store import get_task, iter_tasks, load_task, save_task

# The engine's own stop ladder, and some time to remove what was made.
CANCEL_TIMEOUT_S = 60.0
# In the environment of a task's processes: its folder. What a killed worker leaves is found by it.
VARIABLE = "JUPYTER_APPTAINER_TASK"
_MARK = VARIABLE.encode() + b"="


def cancel_task(places: Places, task_id: str, *, timeout_s: float = CANCEL_TIMEOUT_S) -> Task:
    """Stop a task and return when it has removed what it made. One that is over stays as it is. Raises TaskNotFound.

    After `timeout_s` seconds its processes are killed.
    """
    task = get_task(places, task_id)
    if task.is_over or task.worker is None:
        return task
    task.worker.send_signal(signal.SIGTERM)
    if not task.worker.wait_gone(timeout_s):
        task.worker.send_signal(signal.SIGKILL)
        task.worker.wait_gone(timeout_s)
        end_strays(places, {each.id for each in iter_tasks(places) if not each.is_over})
    ended = load_task(places, task.id) or task
    if (ended.error or {}).get("code") != "task-lost":
        return ended
    cancelled = replace(
        ended,
        state="cancelled",
        error=TaskCancelled(f"`{task.spec.title}` was cancelled, and had to be killed").to_json(),
    )
    save_task(places, cancelled)
    return cancelled


async def cancel_task_async(places: Places, task_id: str) -> Task:
    """`cancel_task` for code on an event loop."""
    return await asyncio.to_thread(cancel_task, places, task_id)


def end_strays(places: Places, active: Collection[str] = ()) -> list[ProcessIdentity]:
    """Ask what tasks have left that are not among `active` to end, and return it: their workers were killed."""
    strays = [
        process for process, folder in _iter_marked() if folder.parent == places.tasks and folder.name not in active
    ]
    for process in strays:
        # TERM, for the engine then removes its temporary folders and unmounts.
        process.send_signal(signal.SIGTERM)
    return strays


def _iter_marked() -> Iterator[tuple[ProcessIdentity, Path]]:
    """Yield the processes of this user that bear a task's mark, and its folder."""
    for stat in iter_stats():
        try:
            words = Path(f"/proc/{stat.pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        mark = next((word for word in words if word.startswith(_MARK)), None)
        if mark and stat.pid != os.getpid():
            yield ProcessIdentity(stat.pid, stat.start_ticks), Path(os.fsdecode(mark.removeprefix(_MARK)))
