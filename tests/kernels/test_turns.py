"""Starts take turns, in the order in which they came, and one that is cancelled gives its turn to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from jupyter_apptainer.kernels.turns import Turns


def test_starts_run_in_their_order_and_not_more_than_allowed() -> None:
    turns, running, order, told = Turns(2), [0, 0], [], []

    @contextmanager
    def waiting(number: int) -> Iterator[None]:
        told.append((number, "waits"))
        yield
        told.append((number, "goes on"))

    async def start(number: int) -> None:
        async with turns.take(lambda: waiting(number)):
            order.append(number)
            running[0] += 1
            running[1] = max(running)
            await asyncio.sleep(0)
            running[0] -= 1

    async def run() -> None:
        starts = [asyncio.ensure_future(start(number)) for number in range(6)]
        await asyncio.sleep(0)
        starts[3].cancel()
        for each in starts:
            with suppress(asyncio.CancelledError):
                await each

    asyncio.run(run())
    assert order == [0, 1, 2, 4, 5]
    assert running == [0, 2]
    assert told == [*((number, "waits") for number in (2, 3, 4, 5)), *((number, "goes on") for number in (2, 4, 5))]
    # Another loop has a queue of its own, and nobody in it.
    asyncio.run(start(9))
    assert order[-1] == 9
