"""Not more starts at once than this machine can carry: the others wait, in the order in which they came.

A class that opens fifty notebooks in the same minute would otherwise have all of them compete, until the last ones run into the
time limit of a start. Waiting does not count for that limit.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

# A start also waits, for the engine and for disks, so that a few more than there are processors are no slower.
PER_PROCESSOR = 8


class Turns:
    """At most `limit` at once, for each event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queues: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = weakref.WeakKeyDictionary()

    @asynccontextmanager
    async def take(self, on_wait: Callable[[int], None]) -> AsyncIterator[None]:
        """The block is one start. on_wait: told how many wait already, where it has to."""
        queue = self._queues.setdefault(asyncio.get_running_loop(), _Queue(self._limit))
        if queue.free.locked():
            on_wait(queue.waiting)
        queue.waiting += 1
        try:
            await queue.free.acquire()
        finally:
            queue.waiting -= 1
        try:
            yield
        finally:
            queue.free.release()


class _Queue:
    def __init__(self, limit: int) -> None:
        self.free = asyncio.Semaphore(limit)
        self.waiting = 0


turns = Turns(PER_PROCESSOR * len(os.sched_getaffinity(0)))
