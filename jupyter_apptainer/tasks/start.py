"""Start tasks, and join those that make the same thing already. Each gets a process of its own, which belongs to nobody."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..config import ApptainerConfig, load_config
from ..errors import TaskConflict, TaskFailed, TaskNotFound, TooManyTasks
from ..places import Places, make_private_dir
from .model import Task, TaskSpec
from .stop import VARIABLE, end_strays
from .store import LOG_FILE, clean_old_tasks, find_folder, get_task, iter_tasks, load_task, lock_tasks, save_task


@dataclass(frozen=True)
class Started:
    """is_joined: it was running already, for somebody else."""

    task: Task
    is_joined: bool


def start_task(
    places: Places,
    spec: TaskSpec,
    *,
    environ: Mapping[str, str] | None = None,
    limit: int | None = None,
    queue_limit: int | None = None,
    settings: ApptainerConfig | None = None,
    retry_of: str = "",
) -> Started:
    """Start a task, or join the one that makes the same target from the same things, and return at once.

    environ: of the worker, by default this process's. limit: wait in line while that many others are active.
    queue_limit: how many may be active or wait. settings: how far it gives way, and how long those that are over are kept; by default
    what the configuration files say. Raises TaskConflict where the target is being made from something else, TooManyTasks.
    """
    make_private_dir(places.tasks)
    with lock_tasks(places):
        active = [task for task in iter_tasks(places) if not task.is_over]
        joined = _find_same(active, spec)
        if joined:
            return Started(joined, True)
        if queue_limit is not None and len(active) >= queue_limit:
            raise TooManyTasks(f"{len(active)} tasks run or wait already")
        settings = settings or ApptainerConfig(config=load_config())
        clean_old_tasks(places, settings)
        end_strays(places, {task.id for task in active})
        task = Task(id=_choose_id(places), spec=spec, limit=limit, retry_of=retry_of)
        make_private_dir(find_folder(places, task.id))
        save_task(places, task)
        own = os.environ if environ is None else environ
        return Started(_spawn(places, task, own, settings.task_niceness), False)


async def start_task_async(
    places: Places,
    spec: TaskSpec,
    *,
    environ: Mapping[str, str] | None = None,
    limit: int | None = None,
    queue_limit: int | None = None,
    settings: ApptainerConfig | None = None,
) -> Started:
    """`start_task` for code on an event loop."""
    return await asyncio.to_thread(
        start_task, places, spec, environ=environ, limit=limit, queue_limit=queue_limit, settings=settings
    )


def retry_task(
    places: Places,
    task_id: str,
    *,
    environ: Mapping[str, str] | None = None,
    limit: int | None = None,
    queue_limit: int | None = None,
    settings: ApptainerConfig | None = None,
) -> Started:
    """Start a task that is over anew, with what its files are now. One that still runs is joined. Raises TaskNotFound."""
    task = get_task(places, task_id)
    if not task.is_over:
        return Started(task, True)
    return start_task(
        places,
        task.spec,
        environ=environ,
        limit=limit,
        queue_limit=queue_limit,
        settings=settings,
        retry_of=task.id,
    )


def _find_same(active: list[Task], spec: TaskSpec) -> Task | None:
    same = [task for task in active if spec.target and task.spec.target == spec.target]
    for task in same:
        if (task.spec.work, task.spec.fingerprint) != (spec.work, spec.fingerprint):
            raise TaskConflict(
                f"{spec.target} is being made from something else: {task.spec.title}",
                hint=f"wait for it (`jupyter apptainer tasks log {task.id} --follow`), "
                f"or cancel it: `jupyter apptainer tasks cancel {task.id}`",
            )
    return same[0] if same else None


def _choose_id(places: Places) -> str:
    """Return a name that no task has."""
    while True:
        name = secrets.token_hex(4)
        if not find_folder(places, name).exists():
            return name


def _spawn(places: Places, task: Task, environ: Mapping[str, str], niceness: int) -> Task:
    """Start the worker and return when it has written its name. It leaves its parent, so that nobody has to reap it."""
    folder = find_folder(places, task.id)
    argv = [sys.executable, "-m", f"{__package__}.worker", task.id, json.dumps(places.to_json()), str(niceness)]
    log = os.open(folder / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(
            argv,
            env={**environ, VARIABLE: str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            # Not the caller's folder: Python would import from it.
            cwd="/",
            start_new_session=True,
        )
    finally:
        os.close(log)
    process.communicate()
    started = load_task(places, task.id)
    if started is None:
        raise TaskNotFound(f"the task {task.id} was removed while it started")
    if started.worker is None:
        tail = (folder / LOG_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
        error = TaskFailed(f"the process of the task `{task.spec.title}` did not start", log_tail=tail)
        save_task(places, replace(task, state="failed", error=error.to_json(), ended_at=task.created_at))
        raise error
    return started
