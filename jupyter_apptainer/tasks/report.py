"""What a work tells while it runs: phases, counts and text. Kept on disk by the worker, for whoever looks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ..places import Places
from .model import KEPT_PHASES, Phase, Task
from .store import LOG_FILE, find_folder, save_task

# A count may change a thousand times a second; it is written this often.
_EVERY_S = 0.25


class Report:
    """Given to a work by the worker. Safe to use from several threads."""

    def __init__(self, places: Places, task: Task) -> None:
        self.places = places
        self.task = task
        self.log_path: Path = find_folder(places, task.id) / LOG_FILE
        self._lock = threading.Lock()
        self._written_at = 0.0
        self._written_count = (task.done, task.total)

    def begin(self, phase: str) -> None:
        """Tell what begins now, in a few words."""
        task = self.task
        if phase != task.phase:
            phases = (*task.phases, Phase(phase, time.time()))[-KEPT_PHASES:]
            self.change(phases=phases, phase_count=task.phase_count + 1, done=None, total=None)

    def count(self, done: int, total: int | None, unit: Literal["bytes", "percent", "items"] = "bytes") -> None:
        """Tell how far the phase is."""
        is_last = total is not None and done >= total
        with self._lock:
            # Against what is on disk: a count that came too soon after the last one, and then stands still, is told all the same.
            is_new = (done, total) != self._written_count
            self.task = replace(self.task, done=done, total=total, unit=unit)
            if is_new and (is_last or time.monotonic() - self._written_at >= _EVERY_S):
                self._save()

    def write(self, text: str) -> None:
        """Add to the log."""
        with self.log_path.open("a", encoding="utf-8") as stream:
            stream.write(text)

    def will_make(self, *paths: Path) -> None:
        """Tell what will be removed at the end, however that comes: should the worker be killed, somebody else removes it."""
        self.change(made=[*self.task.made, *map(str, paths)])

    def change(self, **values: Any) -> None:
        """Set fields of the task and write them at once: the worker's own way to say what becomes of it."""
        with self._lock:
            self.task = replace(self.task, **values)
            self._save()

    def _save(self) -> None:
        self._written_at = time.monotonic()
        self._written_count = (self.task.done, self.task.total)
        save_task(self.places, self.task)


Work = Callable[[dict[str, Any], Report], "dict[str, Any]"]
"""Does what a TaskSpec says; returns its result, as JSON."""
