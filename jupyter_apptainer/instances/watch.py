"""Events instead of polling: files that appear in a folder (inotify), and file descriptors that become readable.

The standard library has no inotify, and the three calls that we need are not worth a dependency.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

# inotify(7)
_IN_MODIFY = 0x2
_IN_CLOSE_WRITE = 0x8
_IN_MOVED_TO = 0x80
_IN_CREATE = 0x100
_IN_DELETE = 0x200
_BLIND_WAIT_S = 0.02
_EVENT = struct.Struct("iIII")


class DirectoryWatch:
    """Tells when something appears in a folder: `fileno()` becomes readable; `drain()` returns the names.

    has_writes: tells of each write to a file there, too. has_removals: of what disappears. Raises OSError where the folder does not exist, or where the user's inotify watches are used up.
    """

    def __init__(self, path: str, *, has_writes: bool = False, has_removals: bool = False) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        wanted = _IN_CLOSE_WRITE | _IN_MOVED_TO | _IN_CREATE | (_IN_MODIFY if has_writes else 0)
        wanted |= _IN_DELETE if has_removals else 0
        watch = libc.inotify_add_watch(self._descriptor, os.fsencode(path), wanted)
        if watch < 0:
            error = ctypes.get_errno()
            os.close(self._descriptor)
            raise OSError(error, os.strerror(error), path)

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return int(self._descriptor)

    def drain(self) -> list[str]:
        """Return the names that came since the last call."""
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return []
        names: list[str] = []
        offset = 0
        while offset < len(data):
            _, _, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size
            names.append(os.fsdecode(data[offset : offset + length].rstrip(b"\0")))
            offset += length
        return names

    def __enter__(self) -> DirectoryWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Linux lets this wait for all of its processors, for some 4 to 10 ms, and a start has three such watches.
        closing = threading.Thread(target=os.close, args=(self._descriptor,), name="close-watch", daemon=True)
        try:
            closing.start()
        except RuntimeError:
            # The interpreter ends, and starts no threads any more.
            os.close(self._descriptor)


@contextmanager
def watch_exit(pid: int) -> Iterator[int]:
    """Give a descriptor that becomes readable when the process ends, -1 where the kernel has no pidfds (before Linux 5.3)."""
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):
        yield -1
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def wait_readable(wanted: Sequence[int], timeout_s: float) -> bool:
    """Wait on the running loop until one of the descriptors is readable; False after `timeout_s` seconds.

    Where one of them is -1 nothing will tell, so the wait is short and the caller looks again.
    """
    descriptors = [descriptor for descriptor in wanted if descriptor >= 0]
    if len(descriptors) < len(wanted):
        timeout_s = min(timeout_s, _BLIND_WAIT_S)
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(True)

    for descriptor in descriptors:
        loop.add_reader(descriptor, wake)
    try:
        await asyncio.wait_for(ready, max(0.0, timeout_s))
        return True
    except asyncio.TimeoutError:
        return False
    finally:
        for descriptor in descriptors:
            loop.remove_reader(descriptor)
