"""How long work is shown, on standard error: a spinner with the time on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def show_progress() -> Iterator[Callable[[str], None]]:
    """Yield a function that is told, in one sentence each, what begins now; what went before is done by then."""
    if not sys.stderr.isatty():
        yield lambda text: print(text, file=sys.stderr, flush=True)
        return
    # Loaded only where it is used: it would take a third of the time of `--help`.
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as progress:
        started = time.monotonic()

        def finish() -> None:
            for task in progress.tasks:
                console.print(f"✓ {time.monotonic() - started:6.1f} s  {task.description}", markup=False)
                progress.remove_task(task.id)

        def begin(text: str) -> None:
            nonlocal started
            finish()
            started = time.monotonic()
            progress.add_task(text, total=None)

        yield begin
        finish()
