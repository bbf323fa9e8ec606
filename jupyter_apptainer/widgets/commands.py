"""Runs what a button asks for: a command line of ours, in a process of its own, waited for by a thread and never by the kernel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping

from .front.model import Words
from .front.source import Outcome

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Commands:
    """The commands of one panel. `close` ends those that still run; tasks that they have started go on."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = {**(os.environ if environ is None else environ), "NO_COLOR": "1", "TERM": "dumb"}
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._is_closed = False

    def start(self, words: Words, on_end: Callable[[Outcome], None]) -> threading.Thread:
        """Run `jupyter apptainer WORDS…` and call `on_end` in a thread; not after `close`."""
        thread = threading.Thread(target=self._run, args=(words, on_end), name="jpa-panel-command", daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """End what runs."""
        with self._lock:
            self._is_closed = True
            running = list(self._running)
        for process in running:
            process.terminate()

    def _run(self, words: Words, on_end: Callable[[Outcome], None]) -> None:
        process = self._open(words)
        if process is None:
            return
        output, errors = process.communicate()
        with self._lock:
            self._running.discard(process)
            is_wanted = not self._is_closed
        if is_wanted:
            is_ok = process.returncode == 0
            on_end(Outcome(is_ok, _COLOUR.sub("", output), _clean(errors), is_task="--detach" in words))

    def _open(self, words: Words) -> subprocess.Popen[str] | None:
        with self._lock:
            if self._is_closed:
                return None
            process = subprocess.Popen(
                [sys.executable, "-m", "jupyter_apptainer.cli.main", *words],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
            self._running.add(process)
            return process


def _clean(text: str) -> str:
    return _COLOUR.sub("", text).strip().removeprefix("error: ")
