"""After a kernel's start: have its image unpacked for the next ones, in a thread, so that nobody waits for the process that does it."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

from ..config import ApptainerConfig
from ..errors import ApptainerError
from .prepare import Preparation
from .unpacked import request_copy

Log = logging.Logger | logging.LoggerAdapter[Any]


def start_unpacking(preparation: Preparation, settings: ApptainerConfig, log: Log) -> None:
    """Start the task that makes a copy of the image, where one is wished and of use. Returns at once; what is wrong goes to the log."""
    threading.Thread(target=_request, args=(preparation, settings, log), name="unpack-image", daemon=True).start()


def _request(preparation: Preparation, settings: ApptainerConfig, log: Log) -> None:
    try:
        started = request_copy(preparation.plan, preparation.final, settings, preparation.places, os.environ)
    except (ApptainerError, OSError) as error:
        log.warning("The image %s is not unpacked: %s", preparation.plan.image, error)
        return
    if started is not None and not started.is_joined:
        log.info("The image %s is being unpacked by task %s", preparation.plan.image, started.task.id)
