"""How a pull or push is shown, on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..images.transfer import OnTransfer, Progress

_MIB = 1024 * 1024
_STEP_PERCENT = 25


@contextmanager
def show_transfer() -> Iterator[OnTransfer]:
    """Yield a function that is told where a transfer is."""
    if not sys.stderr.isatty():
        yield _PlainLines().show
        return
    # Loaded only where it is used: it would take a third of the time of `--help`.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True, highlight=False)
    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False), BarColumn())
    with Bars(*columns, DownloadColumn(binary_units=True), console=console, transient=True) as bars:
        task = bars.add_task("", total=None)
        yield lambda progress: bars.update(
            task, description=progress.phase, completed=progress.done_bytes or 0, total=progress.total_bytes
        )


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let TERM and HUP end the block as an interrupt does: through the stop ladder, with nothing left behind."""
    previous = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class _PlainLines:
    """A line for each phase, and one for each quarter of a download."""

    def __init__(self) -> None:
        self._phase = ""
        self._percent = 0

    def show(self, progress: Progress) -> None:
        if progress.phase != self._phase:
            self._phase, self._percent = progress.phase, 0
            print(progress.phase, file=sys.stderr, flush=True)
        if progress.total_bytes and progress.done_bytes:
            percent = 100 * progress.done_bytes // progress.total_bytes // _STEP_PERCENT * _STEP_PERCENT
            if percent > self._percent:
                self._percent = percent
                print(
                    f"{progress.phase}: {percent} % of {progress.total_bytes / _MIB:.1f} MiB",
                    file=sys.stderr,
                    flush=True,
                )
