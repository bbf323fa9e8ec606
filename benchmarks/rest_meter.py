"""Read by the server that `benchmarks.rest` measures, as its configuration: writes how long each handler took, and how late its loop was.

Durations are the server's own, from a request's headers to the end of its answer. Lateness is that of a timer on the loop: whatever blocks
the loop is in it, and for how long the server's threads were ready and got no processor, which is written beside it.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import suppress
from functools import cache
from typing import IO, Any

# The file that the figures go to.
VARIABLE = "JPA_BENCHMARK_METER"
LOOP = "(loop late)"
PROCESSOR = "(no processor)"
_TICK_S = 0.02


def configure(config: Any) -> None:
    """Called by the server's configuration file."""
    config.ServerApp.tornado_settings = {"log_function": note_request}


def note_request(handler: Any) -> None:
    """Called by tornado after each answer."""
    path = handler.request.path.rpartition("/v1")[2] if "/v1/" in handler.request.path else handler.request.path
    _write({"path": path, "status": handler.get_status(), "ms": 1000 * handler.request.request_time()})
    _start_ticker()


@cache
def _start_ticker() -> asyncio.Task[None]:
    return asyncio.ensure_future(_tick())


async def _tick() -> None:
    waited = _read_waits()
    while True:
        due = time.perf_counter() + _TICK_S
        await asyncio.sleep(_TICK_S)
        late_ms = 1000 * (time.perf_counter() - due)
        before, waited = waited, _read_waits()
        longest_ns = max(waits - before.get(thread, 0) for thread, waits in waited.items())
        _write({"path": LOOP, "status": 200, "ms": late_ms})
        _write({"path": PROCESSOR, "status": 200, "ms": longest_ns / 1e6})


def _read_waits() -> dict[str, int]:
    """Return for how many nanoseconds each thread has waited for a processor (proc_pid_schedstat of the kernel's documentation)."""
    waits = {}
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError), open(f"/proc/self/task/{thread}/schedstat") as stream:
            waits[thread] = int(stream.read().split()[1])
    return waits


def _write(record: dict[str, object]) -> None:
    _open().write(json.dumps(record) + "\n")


@cache
def _open() -> IO[str]:
    return open(os.environ[VARIABLE], "a", buffering=1, encoding="utf-8")
