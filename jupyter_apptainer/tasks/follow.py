"""Watch a task from any process: each change of its state, and its log as it grows. For plain code and for event loops."""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ..instances.watch import DirectoryWatch, wait_readable, watch_exit
from ..places import Places
from .model import Task, build_error
from .store import find_folder, get_task, read_log

# A worker's end is an event; this is only for systems that have none.
_LONGEST_WAIT_S = 3600.0
_BLIND_WAIT_S = 0.5


@dataclass(frozen=True)
class Update:
    """What is new. text: what was added to the log. next_offset: how far that goes, in bytes."""

    task: Task
    text: str
    next_offset: int


def follow_task(places: Places, task_id: str, *, offset: int = 0) -> Iterator[Update]:
    """Yield how the task is now, and then every change until it is over; its log from `offset` on. Raises TaskNotFound."""
    with _Watch(places, task_id, offset) as watch:
        while not watch.is_over:
            yield from watch.read()
            if not watch.is_over:
                watch.wait()


async def follow_task_async(places: Places, task_id: str, *, offset: int = 0) -> AsyncIterator[Update]:
    """`follow_task` for code on an event loop."""
    with _Watch(places, task_id, offset) as watch:
        while not watch.is_over:
            for update in await asyncio.to_thread(lambda: list(watch.read())):
                yield update
            if not watch.is_over:
                await wait_readable(watch.descriptors, _LONGEST_WAIT_S)
                watch.drain()


def wait_for_task(places: Places, task_id: str) -> Mapping[str, Any]:
    """Return a task's result when it is done; raise the error that it ended with, of its own class."""
    task = get_task(places, task_id)
    for update in follow_task(places, task.id):
        task = update.task
    return get_result(task)


async def wait_for_task_async(places: Places, task_id: str) -> Mapping[str, Any]:
    """`wait_for_task` for code on an event loop."""
    task = get_task(places, task_id)
    async for update in follow_task_async(places, task.id):
        task = update.task
    return get_result(task)


def get_result(task: Task) -> Mapping[str, Any]:
    """Return the result of a task that is over; raise the error that it ended with."""
    if task.state != "done":
        raise build_error(task)
    return task.result or {}


class _Watch:
    """The folder of a task, and its process."""

    def __init__(self, places: Places, task_id: str, offset: int) -> None:
        self._places = places
        self._offset = offset
        self._task = get_task(places, task_id)
        self._stack = ExitStack()
        self._folder: DirectoryWatch | None = None
        self.is_over = False

    def __enter__(self) -> _Watch:
        folder = find_folder(self._places, self._task.id)
        try:
            self._folder = self._stack.enter_context(DirectoryWatch(str(folder), has_writes=True))
        except OSError:
            # The account's watches are used up.
            self._folder = None
        pid = self._task.worker.pid if self._task.worker else -1
        seen = self._folder.fileno() if self._folder else -1
        self.descriptors = (seen, self._stack.enter_context(watch_exit(pid)))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self) -> Iterator[Update]:
        """Yield what is new; a long log comes in parts."""
        self._task = get_task(self._places, self._task.id)
        while (part := read_log(self._places, self._task.id, self._offset)).text:
            self._offset = part.next_offset
            yield Update(self._task, part.text, self._offset)
        # Its end is told after all that it has printed.
        self.is_over = self._task.is_over
        yield Update(self._task, "", self._offset)

    def wait(self) -> None:
        poller = select.poll()
        for descriptor in self.descriptors:
            if descriptor >= 0:
                poller.register(descriptor, select.POLLIN)
        poller.poll((_BLIND_WAIT_S if -1 in self.descriptors else _LONGEST_WAIT_S) * 1000)
        self.drain()

    def drain(self) -> None:
        if self._folder:
            self._folder.drain()
