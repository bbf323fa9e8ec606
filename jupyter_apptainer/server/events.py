"""Events about tasks, instances and GPUs on the server's event bus, for as long as somebody looks.

Who asks for the list of one of them (`GET /tasks`, …) looks at it for the next minute. Nobody looking means that nothing is watched.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from ..errors import TaskNotFound
from ..gpu.model import GpuReport
from ..gpu.sampler import find_sampler
from ..instances.ledger import iter_entries
from ..instances.model import LedgerEntry
from ..instances.watch import DirectoryWatch, wait_readable
from ..places import Places, make_private_dir
from ..tasks.follow import Update, follow_task_async
from ..tasks.store import iter_tasks

Noun = Literal["task", "instance", "gpu"]
SCHEMAS: dict[Noun, str] = {
    "task": "https://events.jupyter.org/jupyter_apptainer/task/v1",
    "instance": "https://events.jupyter.org/jupyter_apptainer/instance/v1",
    "gpu": "https://events.jupyter.org/jupyter_apptainer/gpu/v1",
}
LOOK_S = 60.0
# A log may grow a thousand times a second.
_EVERY_S = 0.25


def register_schemas(event_logger: Any) -> None:
    """Make the schemas known; a subscriber gets only those that were known when it came."""
    for noun, schema_id in SCHEMAS.items():
        if schema_id not in event_logger.schemas:
            event_logger.register_event_schema(json.loads(Path(__file__).with_name(f"{noun}.schema.json").read_text()))


class Broadcaster:
    """Tells while somebody looks. For one event loop."""

    def __init__(self, event_logger: Any, places: Places, log: logging.Logger) -> None:
        self._event_logger = event_logger
        self._log = log
        self._places = places
        self._until: dict[Noun, float] = {}
        self._jobs: dict[Noun, asyncio.Task[None]] = {}

    def look(self, noun: Noun) -> None:
        """Somebody looks, from now on for LOOK_S seconds."""
        self._until[noun] = time.monotonic() + LOOK_S
        job = self._jobs.get(noun)
        if job is None or job.done():
            tellers: dict[Noun, Callable[[], Awaitable[None]]] = {
                "task": self._tell_tasks,
                "instance": self._tell_instances,
                "gpu": self._tell_gpus,
            }
            self._jobs[noun] = asyncio.ensure_future(self._run(noun, tellers[noun]))

    async def close(self) -> None:
        """Tell no more."""
        for job in self._jobs.values():
            job.cancel()
        await asyncio.gather(*self._jobs.values(), return_exceptions=True)

    async def _run(self, noun: Noun, tell: Callable[[], Awaitable[None]]) -> None:
        try:
            await tell()
        except OSError as error:
            self._log.warning("No events of %s until somebody looks again: %s", noun, error)

    def _left_s(self, noun: Noun) -> float:
        return self._until[noun] - time.monotonic()

    def _emit(self, noun: Noun, data: dict[str, Any]) -> None:
        self._event_logger.emit(schema_id=SCHEMAS[noun], data=data)

    async def _tell_tasks(self) -> None:
        followed: dict[str, asyncio.Task[None]] = {}
        began = time.time()
        folder = await asyncio.to_thread(make_private_dir, self._places.tasks)
        try:
            with DirectoryWatch(str(folder)) as watch:
                while self._left_s("task") > 0:
                    for task in await asyncio.to_thread(lambda: list(iter_tasks(self._places))):
                        # A short one may be over before it is seen.
                        is_past = task.is_over and (task.ended_at or 0.0) < began
                        if not is_past and task.id not in followed:
                            followed[task.id] = asyncio.ensure_future(self._tell_task(task.id))
                    await wait_readable([watch.fileno()], self._left_s("task"))
                    watch.drain()
        finally:
            for job in followed.values():
                job.cancel()
            await asyncio.gather(*followed.values(), return_exceptions=True)

    async def _tell_task(self, task_id: str) -> None:
        told: dict[str, Any] = {}
        line = ""
        with suppress(TaskNotFound):
            async for update in follow_task_async(self._places, task_id):
                line = next((word for word in reversed(update.text.splitlines()) if word.strip()), line)
                if update.text:
                    # More may follow; after the last part comes an update without any.
                    continue
                data = describe_update(update, line)
                if data != told:
                    self._emit("task", data)
                    told = data
                if not update.task.is_over:
                    await asyncio.sleep(_EVERY_S)

    async def _tell_instances(self) -> None:
        folder = await asyncio.to_thread(make_private_dir, self._places.ledger)
        known: dict[str, LedgerEntry] | None = None
        with DirectoryWatch(str(folder), has_removals=True) as watch:
            while self._left_s("instance") > 0:
                entries = await asyncio.to_thread(lambda: {each.name: each for each in iter_entries(self._places)})
                if known is not None:
                    for name in entries.keys() - known.keys():
                        self._emit("instance", _describe_entry(entries[name], "started"))
                    for name in known.keys() - entries.keys():
                        self._emit("instance", _describe_entry(known[name], "ended"))
                known = entries
                await wait_readable([watch.fileno()], self._left_s("instance"))
                watch.drain()

    async def _tell_gpus(self) -> None:
        reports: asyncio.Queue[GpuReport] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        with find_sampler().watch(lambda report: _put(loop, reports, report)):
            while (left := self._left_s("gpu")) > 0:
                with suppress(asyncio.TimeoutError):
                    report = await asyncio.wait_for(reports.get(), left)
                    self._emit("gpu", {"report": asdict(report)})


def describe_update(update: Update, line: str) -> dict[str, Any]:
    """Return the event about one change of a task."""
    task = update.task
    data: dict[str, Any] = {
        "task_id": task.id,
        "kind": task.spec.kind,
        "title": task.spec.title,
        "state": task.state,
        "phase": task.phase,
        "percent": task.percent,
        "line": line,
    }
    error = task.error or {}
    return data | {name: error[name] for name in ("code", "message", "hint") if error.get(name)}


def _describe_entry(entry: LedgerEntry, state: str) -> dict[str, Any]:
    return {
        "name": entry.name,
        "state": state,
        "kernel_id": entry.kernel_id,
        "label": entry.label,
        "image": entry.image,
    }


def _put(loop: asyncio.AbstractEventLoop, reports: asyncio.Queue[GpuReport], report: GpuReport) -> None:
    with suppress(RuntimeError):
        # The loop may be closed by now.
        loop.call_soon_threadsafe(reports.put_nowait, report)
