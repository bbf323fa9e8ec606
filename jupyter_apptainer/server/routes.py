"""Addresses and their handlers. GET of `overlays` and its changes share one address, and so one handler."""

from __future__ import annotations

from .api import BASE, ApiHandler, UnknownHandler
from .changes import InstanceHandler, KernelspecHandler, KernelspecsHandler, LoginsHandler, OverlaysHandler
from .image import ImageContentHandler, ImageHandler
from .reading import LOOKS, build_look_handler
from .starts import RepairsHandler, StartHandler, StartsHandler
from .tasks import TaskHandler, TaskLogHandler, TaskRetryHandler, TasksHandler
from .terminals import TerminalsHandler

# jupyter_server takes any id that a client makes up.
_START = r"/starts/([A-Za-z0-9_-]{1,100})"
_TASK = r"/tasks/([0-9a-f]{1,8})"


def build_routes() -> list[tuple[str, type[ApiHandler]]]:
    """Return them all; the last one takes what no other does."""
    looks = [(f"/{noun}", build_look_handler(noun, look)) for noun, look in LOOKS.items() if noun != "overlays"]
    routes: list[tuple[str, type[ApiHandler]]] = [
        *looks,
        ("/image", ImageHandler),
        ("/image/content", ImageContentHandler),
        ("/overlays", OverlaysHandler),
        (r"/instances/(jpa-[A-Za-z0-9_.-]+)", InstanceHandler),
        ("/kernelspecs", KernelspecsHandler),
        (r"/kernelspecs/([A-Za-z0-9_.-]+)", KernelspecHandler),
        ("/logins", LoginsHandler),
        ("/starts", StartsHandler),
        (_START, StartHandler),
        (rf"{_START}/repairs", RepairsHandler),
        ("/tasks", TasksHandler),
        (_TASK, TaskHandler),
        (rf"{_TASK}/log", TaskLogHandler),
        (rf"{_TASK}/retry", TaskRetryHandler),
        ("/terminals", TerminalsHandler),
        ("(?:/.*)?", UnknownHandler),
    ]
    return [(BASE + address, handler) for address, handler in routes]
