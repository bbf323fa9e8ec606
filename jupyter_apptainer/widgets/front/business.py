"""Whether a cell runs in this kernel: then clicks wait, and a panel that shows what the cell does has to go on by itself."""

from __future__ import annotations

from typing import Any

from IPython import get_ipython


class Business:
    """Listens to IPython, where there is one, until `close`."""

    def __init__(self) -> None:
        self._is_running = False
        self._shell: Any = get_ipython()
        if self._shell is not None:
            self._shell.events.register("pre_run_cell", self._begin)
            self._shell.events.register("post_run_cell", self._end)

    def is_there(self) -> bool:
        """Say whether a cell runs now."""
        return self._is_running

    def close(self) -> None:
        """Listen no more. Closing twice is no error."""
        shell, self._shell = self._shell, None
        if shell is not None:
            shell.events.unregister("pre_run_cell", self._begin)
            shell.events.unregister("post_run_cell", self._end)

    def _begin(self, _info: object) -> None:
        self._is_running = True

    def _end(self, _result: object) -> None:
        self._is_running = False
