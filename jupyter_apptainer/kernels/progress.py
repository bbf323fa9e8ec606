"""The phases of a start, as they begin and end: for logs, and for front ends that show them.

image: the image is looked at and asked for its Python. overlay: the overlays are looked at. queue: others start first. instance: the container comes up.
connect: the kernel runs and is waited for. A restart in place has the last phase alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, cast

from ..errors import ApptainerError, LaunchError, StartCancelled

Phase = Literal["image", "overlay", "queue", "instance", "connect"]
Status = Literal["started", "done", "failed"]
CANCELLED = "the start of this kernel was cancelled"


@dataclass(frozen=True)
class PhaseEvent:
    """seconds: since the phase began. code, message, hint: why it failed."""

    phase: Phase
    status: Status
    seconds: float = 0.0
    message: str = ""
    hint: str = ""
    code: str = ""


def _ignore(event: PhaseEvent) -> None:
    pass


class Progress:
    """Measures the phases of one kernel's starts and tells of them. `tell` is called on whatever thread the phase runs in."""

    def __init__(self, tell: Callable[[PhaseEvent], None] = _ignore) -> None:
        self._tell = tell
        self._open: dict[Phase, float] = {}
        self._has_failed = False
        self.seconds: dict[Phase, float] = {}

    @contextmanager
    def phase(self, name: Phase, *, is_shown: bool = True) -> Iterator[None]:
        """The block is one phase. is_shown: False where there is nothing to do in it."""
        if not is_shown:
            yield
            return
        began = self._open[name] = time.monotonic()
        self._tell(PhaseEvent(name, "started"))
        try:
            yield
        except BaseException as error:
            self._has_failed = True
            self._tell(_build_failure(name, time.monotonic() - began, error))
            raise
        finally:
            self._open.pop(name, None)
        self.seconds[name] = time.monotonic() - began
        self._tell(PhaseEvent(name, "done", self.seconds[name]))

    def fail(self, error: ApptainerError) -> None:
        """Tell of a failure before the first phase, or between two of them; one that a phase has told of is not told again."""
        if not self._has_failed:
            self._tell(_build_failure(_find_phase(error), 0.0, error))
        self._has_failed = False

    def abandon(self) -> None:
        """Nobody waits for the phases that are open, which end on a thread of their own: tell that they failed, and no more."""
        tell, self._tell = self._tell, _ignore
        self._has_failed = True
        for name, began in reversed(list(self._open.items()) or [("image", time.monotonic())]):
            tell(_build_failure(name, time.monotonic() - began, StartCancelled(CANCELLED)))

    def describe(self) -> str:
        """Return the phases and how long they took, for a log."""
        return ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in self.seconds.items())


def _find_phase(error: ApptainerError) -> Phase:
    return cast(Phase, error.phase) if isinstance(error, LaunchError) else "image"


def _build_failure(phase: Phase, seconds: float, error: BaseException) -> PhaseEvent:
    if isinstance(error, ApptainerError):
        return PhaseEvent(phase, "failed", seconds, error.message, error.hint or "", error.code)
    if isinstance(error, asyncio.CancelledError):
        return PhaseEvent(phase, "failed", seconds, CANCELLED, code=StartCancelled.code)
    return PhaseEvent(phase, "failed", seconds, str(error))


SILENT = Progress()
