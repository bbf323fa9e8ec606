"""The starts of this process: those under way, which can be cancelled, and the newest that failed, for whoever mends them.

jupyter_client knows no way to end a start, and a server knows a kernel only when it runs; so provisioners enter their starts here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..errors import ApptainerError, StartCancelled
from .progress import CANCELLED
from .spec import ContainerSpec

T = TypeVar("T")
_KEPT = 20
# An instance that comes up half-way is waited for before it is ended.
_CANCEL_S = 30.0


class Start:
    """One start. label: the notebook, where it is known. error: why it failed; failed_at: on the monotonic clock. For one event loop.

    read_wish: what was asked for, as far as it can be told: it raises the ApptainerError that says why not.
    """

    def __init__(self, kernel_id: str, kernelspec: str) -> None:
        self.kernel_id = kernel_id
        self.kernelspec = kernelspec
        self.label = ""
        self.error: ApptainerError | None = None
        self.failed_at = 0.0
        self.read_wish: Callable[[], ContainerSpec] | None = None
        self._step: asyncio.Future[Any] | None = None
        self._is_cancelled = False

    @property
    def is_under_way(self) -> bool:
        """It can be cancelled."""
        return self._step is not None

    def fail(self, error: ApptainerError) -> None:
        """Note why it failed, and when."""
        self.error, self.failed_at = error, time.monotonic()

    async def run(self, step: Coroutine[Any, Any, T]) -> T:
        """Await a part of the start. Raises StartCancelled where `cancel` has ended it, when all that it made is gone."""
        if self._is_cancelled:
            step.close()
            raise _build_error()
        self._step = asyncio.ensure_future(step)
        try:
            result: T = await self._step
        except asyncio.CancelledError:
            if not self._is_cancelled:
                raise
            raise _build_error() from None
        finally:
            self._step = None
        return result

    async def cancel(self) -> None:
        """End it, and return when it has ended."""
        self._is_cancelled = True
        if self._step is not None:
            self._step.cancel()
            await asyncio.wait({self._step}, timeout=_CANCEL_S)


class Starts:
    """Starts by the ids of their kernels."""

    def __init__(self) -> None:
        self._starts: dict[str, Start] = {}

    def begin(self, kernel_id: str, kernelspec: str) -> Start:
        """Note a start; an earlier one of the same kernel is forgotten."""
        self.forget(kernel_id)
        start = self._starts[kernel_id] = Start(kernel_id, kernelspec)
        over = [each.kernel_id for each in self._starts.values() if not each.is_under_way]
        for old in over[:-_KEPT]:
            self.forget(old)
        return start

    def forget(self, kernel_id: str) -> None:
        """The kernel runs, or there is nothing to say about it any more."""
        self._starts.pop(kernel_id, None)

    def find(self, kernel_id: str) -> Start | None:
        """Return the newest start of a kernel, None where it is over and has not failed."""
        return next((start for start in self.list() if start.kernel_id == kernel_id), None)

    def list(self) -> list[Start]:
        """Return those under way and those that failed, newest first."""
        return [start for start in reversed(self._starts.values()) if start.is_under_way or start.error is not None]


def _build_error() -> StartCancelled:
    return StartCancelled(CANCELLED)


STARTS = Starts()
