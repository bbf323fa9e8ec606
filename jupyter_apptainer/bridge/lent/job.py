"""A command in the background."""

# ruff: noqa: UP035, UP045 - the image's Python may be older than ours
from __future__ import annotations

import threading
from typing import Callable, Optional

from .call import Answer, ApptainerError, Call


class Job(threading.Thread):
    """A command in the background: `--bg`, `--proc NAME`. Its output is kept. on_end: called from its thread, with the answer."""

    def __init__(self, call: Call, line: str, on_end: Callable[[Answer], None]) -> None:
        super().__init__(name="apptainer-job", daemon=True)
        self._call = call
        self._line = line
        self._on_end = on_end
        self._answer: Optional[Answer] = None
        self._error: Optional[ApptainerError] = None
        self.start()

    def run(self) -> None:
        """The thread."""
        try:
            self._answer = self._call.finish()
        except ApptainerError as error:
            self._error = error
            return
        self._on_end(self._answer)

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._call.get_text("stdout")

    @property
    def stderr(self) -> str:
        """The same of standard error."""
        return self._call.get_text("stderr")

    @property
    def returncode(self) -> Optional[int]:
        """None while it runs; negative where a signal ended it."""
        if self._answer is None:
            return None if self._error is None else self._error.returncode
        return self._answer.returncode

    @property
    def error(self) -> Optional[ApptainerError]:
        """Why it failed."""
        return self._error or (self._answer.error if self._answer else None)

    def poll(self) -> Optional[int]:
        """Return its exit status, None while it runs."""
        return self.returncode

    def wait(self, timeout_s: Optional[float] = None) -> int:
        """Wait for its end and return its exit status. Raises TimeoutError."""
        self.join(timeout_s)
        if self.returncode is None:
            raise TimeoutError(f"`apptainer {self._line}` still runs after {timeout_s} s")
        return self.returncode

    def stop(self) -> None:
        """Have it stopped; `wait` tells when it has ended."""
        self._call.stop()

    def __repr__(self) -> str:
        state = "runs" if self.returncode is None else f"exit status {self.returncode}"
        return f"<apptainer {self._line}: {state}>"
