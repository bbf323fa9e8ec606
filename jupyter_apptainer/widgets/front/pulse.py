"""Looks again and again in a thread, while somebody sees the panel. Nobody sees it: nothing runs.

Which views there are the front end tells. That a page was closed it does not tell, so a panel that nobody touches pauses after a while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Pulse:
    """look: called in the thread. rest: called there when it pauses. get_interval_s: between two looks.

    is_busy: says whether a cell runs; then nobody can touch anything, and the panel goes on.
    """

    def __init__(
        self,
        look: Callable[[], None],
        rest: Callable[[], None],
        get_interval_s: Callable[[], float],
        pause_after_s: float,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._look = look
        self._rest = rest
        self._get_interval_s = get_interval_s
        self._pause_after_s = pause_after_s
        self._is_busy = is_busy
        self._changed = threading.Condition()
        self._is_seen = False
        self._is_closed = False
        self._is_wanted_now = False
        self._touched_at = time.monotonic()
        self._thread: threading.Thread | None = None

    def touch(self) -> None:
        """Somebody has used the panel: look now, and go on for a while."""
        with self._changed:
            self._touched_at = time.monotonic()
            self._wake()

    def look_soon(self) -> None:
        """Something has changed: look now, if anybody sees it."""
        with self._changed:
            self._wake()

    def set_seen(self, is_seen: bool) -> None:
        """Begin or pause with the first and the last view."""
        with self._changed:
            self._is_seen = is_seen
            if is_seen:
                self._touched_at = time.monotonic()
                if self._thread is None and not self._is_closed:
                    self._thread = threading.Thread(target=self._run, name="jpa-panel", daemon=True)
                    self._thread.start()
            self._wake()

    def close(self) -> None:
        """End for good."""
        with self._changed:
            self._is_closed = True
            self._wake()

    def _wake(self) -> None:
        self._is_wanted_now = True
        self._changed.notify_all()

    def _is_due(self) -> bool:
        return time.monotonic() - self._touched_at < self._pause_after_s or self._is_busy()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._is_closed and not (self._is_seen and self._is_due()):
                    self._changed.release()
                    try:
                        self._rest()
                    finally:
                        self._changed.acquire()
                    self._changed.wait_for(lambda: self._is_closed or (self._is_seen and self._is_due()))
                if self._is_closed:
                    break
                self._is_wanted_now = False
            self._look()
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._is_wanted_now, self._get_interval_s())
        self._rest()
