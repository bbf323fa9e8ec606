"""The phases of a start as events of the Jupyter server, which front ends can subscribe to, and as lines of its log."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

from .progress import PhaseEvent

SCHEMA_PATH = Path(__file__).with_name("kernel_start.schema.json")
SCHEMA_ID = "https://events.jupyter.org/jupyter_apptainer/kernel_start/v1"


def register_schema(event_logger: Any) -> None:
    """Make the schema known to a jupyter_events.EventLogger; a subscriber gets only those that were known when it came."""
    if SCHEMA_ID not in event_logger.schemas:
        event_logger.register_event_schema(json.loads(SCHEMA_PATH.read_text()))


class Announcer:
    """Tells of the phases of one kernel's start. Made on a loop; called there, or on a thread that the loop waits for.

    manager: the kernel manager; a server's has an `event_logger`, that of a script has none.
    """

    def __init__(self, manager: Any, kernel_id: str, log: logging.Logger | logging.LoggerAdapter[Any]) -> None:
        self._event_logger = getattr(manager, "event_logger", None)
        self._kernel_id = kernel_id
        self._kernel_name = getattr(manager, "kernel_name", "")
        self._log = log
        self._loop = asyncio.get_running_loop()
        if self._event_logger is not None:
            register_schema(self._event_logger)

    def __call__(self, event: PhaseEvent) -> None:
        """Log the event and emit it."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._loop.call_soon_threadsafe(self._tell, event)
        else:
            self._tell(event)

    def _tell(self, event: PhaseEvent) -> None:
        if event.status == "failed":
            self._log.warning(
                "Kernel %s: %s failed after %.2f s: %s", self._kernel_id, event.phase, event.seconds, event.message
            )
        else:
            self._log.debug("Kernel %s: %s %s (%.2f s)", self._kernel_id, event.phase, event.status, event.seconds)
        if self._event_logger is None:
            return
        data: dict[str, Any] = {
            "kernel_id": self._kernel_id,
            "kernel_name": self._kernel_name,
            "phase": event.phase,
            "status": event.status,
            "seconds": round(event.seconds, 3),
        }
        data |= {
            name: text
            for name, text in (("code", event.code), ("message", event.message), ("hint", event.hint))
            if text
        }
        self._event_logger.emit(schema_id=SCHEMA_ID, data=data)
