"""Work for a task that is only there to be looked at."""

from __future__ import annotations

import threading
from typing import Any

from jupyter_apptainer.tasks.report import Report


def wait(args: dict[str, Any], report: Report) -> dict[str, Any]:
    """Run until it is cancelled."""
    report.begin("Waiting")
    threading.Event().wait()
    return {}
