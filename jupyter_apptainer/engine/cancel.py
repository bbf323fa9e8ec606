"""A way to end, from outside, the engine's commands that a thread waits for: nobody can interrupt a thread itself.

cancellation = Cancellation()
with cancellation.covering():
    work = asyncio.to_thread(ask_the_image)  # takes the context along
cancellation.cancel()                        # its command goes through the stop ladder, and `run` raises Cancelled
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from weakref import finalize


class Cancelled(Exception):
    """The command was ended because nobody wants its answer any more."""


class Cancellation:
    """Can be used once, from any thread."""

    def __init__(self) -> None:
        # Readable, and so an event for whoever waits, from `cancel` on.
        self.descriptor, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        finalize(self, _close, self.descriptor, self._writer)

    def cancel(self) -> None:
        """End what runs, and at once whatever is started later."""
        os.write(self._writer, b"x")

    @contextmanager
    def covering(self) -> Iterator[None]:
        """Commands that are started in this context, and in threads that take it along, are ended by `cancel`."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)


_CURRENT: ContextVar[Cancellation | None] = ContextVar("cancellation", default=None)


def find_cancellation() -> Cancellation | None:
    """Return what covers the running code."""
    return _CURRENT.get()


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
