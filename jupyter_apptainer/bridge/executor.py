"""Processes of the host that answer for its doors, which are started by their names and kept for the next: `magics.serve` carries out lines
as a cell of a kernel there does, `widgets.serve` knows what the panel shows.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from signal import SIGINT
from typing import Any

from ..errors import BridgeError

# Doors of ours: nothing here may import them, they are above.
LINES = "jupyter_apptainer.magics.serve"
PANELS = "jupyter_apptainer.widgets.serve"
# It ends what it runs by the stop ladder, and a build removes its folders.
_PATIENCE_S = 40.0
_KEPT = 2
OnText = Callable[[str, str], None]


class Executor:
    """One such process, with one line at a time."""

    def __init__(self, environ: Mapping[str, str], door: str) -> None:
        self._process = subprocess.Popen(
            # Under Python's `-m` the working directory comes first in its search path: here that is nobody's to write.
            [sys.executable, "-m", door],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environ),
            cwd="/",
            start_new_session=True,
        )

    def ask(self, record: Mapping[str, Any], on_text: OnText, stop: int) -> dict[str, Any] | None:
        """Return the answer; None where it was stopped, and is of no use any more.

        stop: a file descriptor; as soon as it can be read, or its other end is closed, what runs is interrupted. So it is where `on_text`
        raises OSError. Raises BridgeError where the process has ended by itself.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(record).encode() + b"\n")
            self._process.stdin.flush()
        try:
            for event in self._iter_events(stop):
                if "stream" in event:
                    on_text(event["stream"], event["text"])
                else:
                    return event
        except _Stopped:
            self.end()
            return None
        except OSError:
            self.end()
            raise
        self.end()
        raise BridgeError(
            "the process that should carry this out has ended", hint="try again; if it stays so, report it"
        )

    def _iter_events(self, stop: int) -> Iterator[dict[str, Any]]:
        assert self._process.stdout is not None
        source = self._process.stdout.fileno()
        poller = select.poll()
        poller.register(source, select.POLLIN)
        poller.register(stop, select.POLLIN)
        rest = b""
        while True:
            ready = dict(poller.poll())
            if stop in ready:
                raise _Stopped
            data = os.read(source, 1 << 16)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield json.loads(line)

    def end(self) -> None:
        """Interrupt what it runs, and wait for its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(ProcessLookupError):
            self._process.send_signal(SIGINT)
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        # Nobody reads what it still has to say; with a full pipe it would not end.
        self._process.stdout.close()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Executors:
    """Those of one worker for one door. Safe to use from several threads.

    is_prepared: one of them is always ready, so that nobody waits for a Python to start.
    """

    def __init__(self, environ: Mapping[str, str], door: str = LINES, *, is_prepared: bool = True) -> None:
        self._environ = environ
        self._door = door
        self._is_prepared = is_prepared
        self._lock = threading.Lock()
        self._idle: list[Executor] = []
        self.prepare()

    def prepare(self) -> None:
        """Have one ready."""
        with self._lock:
            if self._is_prepared and not self._idle:
                self._idle.append(Executor(self._environ, self._door))

    def run(self, record: Mapping[str, Any], on_text: OnText, stop: int) -> dict[str, Any] | None:
        """See `Executor.ask`."""
        with self._lock:
            executor = self._idle.pop() if self._idle else Executor(self._environ, self._door)
        answer = executor.ask(record, on_text, stop)
        with self._lock:
            is_kept = answer is not None and len(self._idle) < _KEPT
            if is_kept:
                self._idle.append(executor)
        if answer is not None and not is_kept:
            executor.end()
        if answer is None:
            self.prepare()
        return answer

    def close(self) -> None:
        """End all that wait."""
        with self._lock:
            idle, self._idle = self._idle, []
        for executor in idle:
            executor.end()


class _Stopped(Exception):
    pass
