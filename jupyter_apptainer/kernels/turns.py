"""Not more starts at once than this machine can carry: the others wait, in the order in which they came.

A class that opens fifty notebooks in the same minute would otherwise have all of them compete, until the last ones run into the
time limit of a start. Waiting does not count for that limit.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext

# A start also waits, for the engine and for disks, so that a few more than there are processors are no slower.
PER_PROCESSOR = 8


class Turns:
    """At most `limit` at once, for each event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            weakref.WeakKeyDictionary()
        )

    @asynccontextmanager
    async def take(self, waiting: Callable[[], AbstractContextManager[None]]) -> AsyncIterator[None]:
        """The block is one start. waiting: what surrounds the wait, where there is one."""
        free = self._loops.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self._limit))
        with waiting() if free.locked() else nullcontext():
            await free.acquire()
        try:
            yield
        finally:
            free.release()


turns = Turns(PER_PROCESSOR * len(os.sched_getaffinity(0)))
