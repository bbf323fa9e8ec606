"""No run of tests waits for ever: a plugin that every test has.

pytest-timeout interrupts a test, but not what waits for a child on the way out (`with Popen(…)`, a thread's `join`). So a while
later the processes that the test has started are killed, which ends such waits. And threads that are no daemons do not keep a run
that is over from exiting: it fails, and names them.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import suppress

import pytest

from tests import world

# For a test that was interrupted to end what it has started by itself.
_GRACE_S = 30.0
_AGAIN_S = 10.0
# Where nothing else is configured.
_LIMIT_S = 300.0
_EXIT_S = 60.0


class Watchdog(threading.Thread):
    """From `limit_s` seconds on, kill what carries this process's tag and is younger than this, until `over` is set."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(name="tests-watchdog", daemon=True)
        self.over = threading.Event()
        self._limit_s = limit_s
        # In whole ticks, as Linux tells when a process started: one of this very tick counts.
        self._since_ticks = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))

    def run(self) -> None:
        delay_s = self._limit_s
        while not self.over.wait(delay_s):
            for process in world.iter_tagged(world.get_tag()):
                if process.start_ticks >= self._since_ticks:
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(process.pid, signal.SIGKILL)
            delay_s = _AGAIN_S


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Watch over a test, its fixtures included."""
    watchdog = Watchdog(_find_limit(item) + _GRACE_S)
    watchdog.start()
    try:
        return (yield)
    finally:
        watchdog.over.set()


def pytest_unconfigure() -> None:
    """See to it that this process exits: idle threads of a pool end by themselves, others may not."""
    timer = threading.Timer(_EXIT_S, _exit)
    timer.daemon = True
    timer.start()


def _exit() -> None:
    names = [thread.name for thread in threading.enumerate() if not thread.daemon]
    print(f"still there {_EXIT_S:.0f} s after the last test: {', '.join(names)}", file=sys.stderr, flush=True)
    # Of no test that failed: a repetition would show nothing.
    os._exit(pytest.ExitCode.INTERNAL_ERROR)


def _find_limit(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0] if marker and marker.args else item.config.getini("timeout") or _LIMIT_S)
