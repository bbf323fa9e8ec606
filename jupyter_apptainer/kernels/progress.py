"""The phases of a start, as they begin and end: for logs, and for front ends that show them.

image: the image is looked at and asked for its Python. overlay: the overlays are looked at. instance: the container comes up.
connect: the kernel runs and is waited for. A restart in place has the last phase alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from ..errors import ApptainerError

Phase = Literal["image", "overlay", "instance", "connect"]
Status = Literal["started", "done", "failed"]


@dataclass(frozen=True)
class PhaseEvent:
    """seconds: since the phase began. message, hint: why it failed."""

    phase: Phase
    status: Status
    seconds: float = 0.0
    message: str = ""
    hint: str = ""


def _ignore(event: PhaseEvent) -> None:
    pass


class Progress:
    """Measures the phases of one kernel's starts and tells of them. `tell` is called on whatever thread the phase runs in."""

    def __init__(self, tell: Callable[[PhaseEvent], None] = _ignore) -> None:
        self._tell = tell
        self.seconds: dict[Phase, float] = {}

    @contextmanager
    def phase(self, name: Phase, *, is_shown: bool = True) -> Iterator[None]:
        """The block is one phase. is_shown: False where there is nothing to do in it."""
        if not is_shown:
            yield
            return
        began = time.monotonic()
        self._tell(PhaseEvent(name, "started"))
        try:
            yield
        except BaseException as error:
            self._tell(_build_failure(name, time.monotonic() - began, error))
            raise
        self.seconds[name] = time.monotonic() - began
        self._tell(PhaseEvent(name, "done", self.seconds[name]))

    def describe(self) -> str:
        """Return the phases and how long they took, for a log."""
        return ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in self.seconds.items())


def _build_failure(phase: Phase, seconds: float, error: BaseException) -> PhaseEvent:
    if isinstance(error, ApptainerError):
        return PhaseEvent(phase, "failed", seconds, error.message, error.hint or "")
    return PhaseEvent(phase, "failed", seconds, str(error) or "the start was cancelled")


SILENT = Progress()
