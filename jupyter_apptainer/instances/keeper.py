"""The keeper: what ends the kernels of an owner that was killed, within seconds and with nobody else there.

A shell, one for each owner and not for each kernel, blocks in `read` on a pipe whose other end the owner holds, and needs less than a
megabyte. However the owner ends, the pipe is closed, which is an event. Only then is a Python started, for the time of a sweep.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..places import find_places
from .janitor import sweep
from .lease import find_next_end
from .process import ProcessIdentity

_SCRIPT = Path(__file__).with_name("keeper.sh")
# What finding our folders and running this Python takes. A server's tokens are none of it.
_VARIABLES = (
    *("HOME", "PATH", "LANG", "LC_ALL", "TMPDIR", "JUPYTER_APPTAINER_HOME"),
    *("XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"),
    *("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH"),
)


@dataclass
class _Keeper:
    process: subprocess.Popen[bytes]
    pipe: int
    identity: ProcessIdentity


_lock = threading.Lock()
_names: set[str] = set()
_keeper: _Keeper | None = None


def hold(name: str) -> ProcessIdentity:
    """Have the entry `name` of this process's looked after; returns the keeper."""
    global _keeper
    with _lock:
        if _keeper is None or _keeper.process.poll() is not None:
            if _keeper is not None:
                os.close(_keeper.pipe)
            _keeper = _start()
        _names.add(name)
        return _keeper.identity


def release(name: str) -> None:
    """The entry is gone, ended by its owner; with the last one the keeper goes."""
    global _keeper
    with _lock:
        _names.discard(name)
        if _keeper is None or _names:
            return
        keeper, _keeper = _keeper, None
        with suppress(BrokenPipeError):
            os.write(keeper.pipe, b"done\n")
        os.close(keeper.pipe)
        keeper.process.wait()


def _start() -> _Keeper:
    ours, theirs = os.pipe()
    try:
        process = subprocess.Popen(
            ["/bin/sh", str(_SCRIPT), sys.executable, "-m", __name__],
            env={name: os.environ[name] for name in _VARIABLES if name in os.environ},
            stdin=ours,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
    except BaseException:
        os.close(theirs)
        raise
    finally:
        os.close(ours)
    identity = ProcessIdentity.find(process.pid)
    assert identity is not None, "not reaped yet, so it is there"
    return _Keeper(process, theirs, identity)


def _forget() -> None:
    """In a forked child: the pipe is its parent's, and must not stay open when that ends."""
    global _keeper, _lock
    _lock = threading.Lock()
    _names.clear()
    if _keeper is not None:
        os.close(_keeper.pipe)
        _keeper = None


os.register_at_fork(after_in_child=_forget)


def main() -> None:
    """Run by the keeper when its owner is gone."""
    places = find_places()
    sweep(places)
    seconds = find_next_end(places)
    if seconds is not None:
        print(max(1, math.ceil(seconds)))


if __name__ == "__main__":
    main()
