"""How a task is shown while it runs, on standard error: phases with their times and a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

from ..places import Places
from ..tasks.follow import follow_task, get_result
from ..tasks.model import Phase, Task
from ..tasks.start import Started
from ..tasks.stop import cancel_task
from .output import print_note

_STEP_PERCENT = 25
_MIB = 1024 * 1024


def show_task(places: Places, started: Started) -> Mapping[str, Any]:
    """Show a task until it is over and return its result; raise the error that it ended with.

    An interrupt cancels a task that was started here; one that was joined goes on. So does either where this process is killed,
    or its terminal closed.
    """
    task = started.task
    if started.is_joined:
        print_note(f"It is being done already: following the task {task.id}.")
    try:
        with _ended_by_term(), _open_view() as view:
            for update in follow_task(places, task.id):
                task = update.task
                view.show(task)
    except KeyboardInterrupt:
        if started.is_joined:
            print_note(f"The task goes on: `jupyter apptainer tasks cancel {task.id}` ends it.")
        else:
            cancel_task(places, task.id)
        raise
    return get_result(task)


class _View(Protocol):
    def show(self, task: Task) -> None: ...


@contextmanager
def _open_view() -> Iterator[_View]:
    if not sys.stderr.isatty():
        yield _PlainLines()
        return
    # Loaded only where it is used: it would take a third of the time of `--help`.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, BarColumn(), TaskProgressColumn(), console=console, transient=True) as bars:
        view = _Bars(bars, console)
        yield view
        view.finish(time.time())


class _PhaseReader:
    """Tells which phases of a task were not seen yet."""

    def __init__(self) -> None:
        self._seen = 0

    def read(self, task: Task) -> list[Phase]:
        new = min(task.phase_count - self._seen, len(task.phases))
        self._seen = task.phase_count
        return list(task.phases[len(task.phases) - new :])


class _PlainLines:
    """A line for each phase, and one for each quarter of what can be counted."""

    def __init__(self) -> None:
        self._phases = _PhaseReader()
        self._percent = 0

    def show(self, task: Task) -> None:
        for phase in self._phases.read(task):
            self._percent = 0
            print(phase.name, file=sys.stderr, flush=True)
        percent = int(task.percent or 0) // _STEP_PERCENT * _STEP_PERCENT
        if percent > self._percent:
            self._percent = percent
            print(f"{task.phase}: {percent} %{_describe_total(task)}", file=sys.stderr, flush=True)


def _describe_total(task: Task) -> str:
    return f" of {(task.total or 0) / _MIB:.1f} MiB" if task.unit == "bytes" else ""


class _Bars:
    """A line for each phase that is over, with its seconds, and a bar for the one that is not."""

    def __init__(self, bars: Any, console: Any) -> None:
        self._bars = bars
        self._console = console
        self._phases = _PhaseReader()
        self._current: Phase | None = None
        self._bar: Any = None

    def show(self, task: Task) -> None:
        for phase in self._phases.read(task):
            self.finish(phase.started_at)
            self._current = phase
            self._bar = self._bars.add_task(phase.name, total=None)
        if self._bar is not None and task.total:
            self._bars.update(self._bar, completed=task.done, total=task.total)
        if task.is_over:
            self.finish(task.ended_at or time.time())

    def finish(self, at: float) -> None:
        """Write the phase that is over."""
        phase, self._current = self._current, None
        if phase:
            self._bars.remove_task(self._bar)
            self._console.print(f"✓ {at - phase.started_at:6.1f} s  {phase.name}", markup=False)


@contextmanager
def _ended_by_term() -> Iterator[None]:
    """Let TERM end the block as an interrupt does; only a program's first thread can say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
