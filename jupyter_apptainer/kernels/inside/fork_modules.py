"""Runs inside the container: what a start of a kernel imports, whether it may be forked after that, and whether it has changed since.

Part of `fork_server.py`. Python 3.8 and newer, standard library only.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Stamp = tuple[int, int, int] | None

# What a start of ipykernel imports, the last of them while it already runs. Each may be missing.
START_MODULES = (
    *("ipykernel.kernelapp", "ipykernel.ipkernel", "ipykernel.zmqshell", "tornado.platform.asyncio"),
    *("ipykernel.debugger", "IPython.core.debugger", "IPython.core.oinspect", "sqlite3"),
    *("IPython.core.completerlib", "IPython.extensions.storemagic", "encodings.idna"),
    *("runpy", "faulthandler", "IPython.core.logger"),
)
# ipykernel's own choice, which Matplotlib looks up when it is imported.
BACKEND = "module://matplotlib_inline.backend_inline"
DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri")


def import_start(finder: Any, defer: Callable[[], None]) -> None:
    """Import what a kernel needs. finder: finds the code of it sooner than the others, or None. defer: does it with what can wait."""
    if finder is not None:
        sys.meta_path.insert(0, finder)
    defer()
    for name in START_MODULES:
        try_import(name)
    if finder is not None:
        sys.meta_path.remove(finder)


def preload(names: list[str], left_out: dict[str, str]) -> str | None:
    """Import the modules `names`; returns the one that must not be loaded before a fork.

    left_out: is told why a module was not loaded.
    """
    had_backend = "MPLBACKEND" in os.environ
    os.environ.setdefault("MPLBACKEND", BACKEND)
    try:
        for name in names:
            if name in left_out:
                continue
            error = try_import(name)
            if error:
                left_out[name] = error
                continue
            obstacle = find_obstacle()
            if obstacle:
                left_out[name] = obstacle
                return name
    finally:
        if not had_backend:
            del os.environ["MPLBACKEND"]
    # It connects itself with the shell when it is imported, and there is none yet.
    sys.modules.pop("matplotlib_inline.backend_inline", None)
    return None


def try_import(name: str) -> str:
    """Import a module; returns what was wrong."""
    try:
        __import__(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a package of the image may raise anything; it is reported
        return "it cannot be imported, " + type(error).__name__ + ": " + str(error)
    return ""


def find_obstacle() -> str:
    """Say what forbids a fork: threads that do not outlive it, or a GPU whose driver does not."""
    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if others:
        return "it starts threads when it is imported (" + ", ".join(others) + ")"
    if len(os.listdir("/proc/self/task")) > 1:
        # Threads of a library that is made for it (OpenBLAS) end before a fork and come back when they are needed.
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        if len(os.listdir("/proc/self/task")) > 1:
            return "it starts threads when it is imported"
    return "it opens a GPU when it is imported" if any(map(is_device, os.listdir("/proc/self/fd"))) else ""


def is_device(descriptor: str) -> bool:
    """Say whether an open file is a GPU."""
    try:
        return os.readlink("/proc/self/fd/" + descriptor).startswith(DEVICES)
    except OSError:
        return False


def find_changing(is_layered: bool) -> tuple[str, ...]:
    """Return the folders in which files may change: all of them, or what is mounted into an image that is read-only."""
    if is_layered:
        return ("/",)
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
            points = [line.split(" ", 5)[4] for line in stream]
    except OSError:
        return ("/",)
    # With octal numbers for spaces: such a folder is looked at as a whole.
    return tuple({point.partition("\\")[0] if "\\" in point else point + "/" for point in points if point != "/"})


@functools.lru_cache(maxsize=None)  # noqa: UP033  # not in Python 3.8
def can_change(folder: str, changing: tuple[str, ...]) -> bool:
    """Say whether files in the folder may change, links in its path followed."""
    return "/" in changing or (os.path.realpath(folder) + "/").startswith(changing)


def take_stamps(changing: tuple[str, ...], known: Mapping[str, tuple[int, float]]) -> dict[str, Stamp]:
    """Note which state of the files has been imported, and of those that change the search for modules. known: of these it is known."""
    found: dict[str, Stamp] = {}
    for module in list(sys.modules.values()):
        origin = getattr(getattr(module, "__spec__", None), "origin", None)
        if not isinstance(origin, str) or not origin.startswith("/") or origin in known:
            continue
        if can_change(os.path.dirname(origin), changing):
            found[origin] = stamp(origin)
    for folder in sys.path:
        if not can_change(folder, changing):
            continue
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            if name.endswith(".pth"):
                path = os.path.join(folder, name)
                found[path] = stamp(path)
    return found


def stamp(path: str) -> Stamp:
    """Return what changes with the file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def have_changed(known: Mapping[str, tuple[int, float]]) -> bool:
    """Say whether a file has no longer the size and the time that it had. known: both, by path."""
    for path, before in known.items():
        try:
            status = os.stat(path)
        except OSError:
            return True
        if (status.st_size, status.st_mtime) != before:
            return True
    return False
