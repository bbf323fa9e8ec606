"""End an instance, and find those that nobody will end any more.

Ending goes through init: killing it makes the starter unmount in milliseconds and leave ext3 overlays clean. Killing the
starter instead would orphan the FUSE helpers, which then hold the overlay's lock for ever. `instance stop` is not used: it
polls for a zombie and takes 2 to 10 s where PID 1 is slow to reap.

Only what the ledger names is touched, and only when its processes prove to be the same ones (start time, session, namespaces).
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..places import Places
from . import ledger
from .model import FUSE_HELPERS, Instance, LedgerEntry
from .process import ProcessIdentity, ProcessStat, iter_stats, read_command_line, read_namespace

STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Leftover:
    """Something of ours whose owner is gone. `processes` are the pids that will be ended, in order."""

    entry: LedgerEntry
    reason: str
    processes: tuple[int, ...]


def stop_instance(places: Places, instance: Instance, timeout_s: float = STOP_TIMEOUT_S) -> bool:
    """End the instance and all that it mounted; True when nothing of it runs any more.

    Stopping one that is gone already is success. Blocking, usually for about 10 ms: on an event loop, use a thread.
    """
    deadline = time.monotonic() + timeout_s
    instance.init.send_signal(signal.SIGKILL)
    instance.init.wait_gone(timeout_s)
    instance.starter.wait_gone(max(0.0, min(2.0, deadline - time.monotonic())))
    # Usually the starter has ended its helpers by now; where it was killed before, they are ours to end.
    _end_helpers(instance, deadline)
    if instance.starter.is_alive() and not instance.init.is_alive():
        # It waits for its helpers with a timeout of its own; with those gone it leaves.
        instance.starter.wait_gone(max(0.0, deadline - time.monotonic()))
    is_gone = not instance.init.is_alive() and not list(iter_helpers(instance))
    if is_gone:
        _remove_engine_files(instance.name, Path(instance.record_path).parent, instance.log_paths)
    return is_gone


def iter_helpers(instance: Instance) -> Iterator[ProcessStat]:
    """Yield the FUSE helpers of exactly this instance.

    They run in the starter's session and mount namespace, also after it has died: a pid is not given away again while it
    names a session.
    """
    for stat in iter_stats():
        if (
            stat.comm in FUSE_HELPERS
            and stat.session == instance.starter.pid
            and stat.state not in "ZX"
            and stat.start_ticks >= instance.starter.start_ticks
            and read_namespace(stat.pid, "mnt") == instance.mount_namespace
        ):
            yield stat


def _end_helpers(instance: Instance, deadline: float) -> None:
    for wanted in FUSE_HELPERS:
        for stat in list(iter_helpers(instance)):
            if stat.comm != wanted:
                continue
            identity = ProcessIdentity(stat.pid, stat.start_ticks)
            # TERM makes them unmount and write back; KILL only where one hangs.
            identity.send_signal(signal.SIGTERM)
            if not identity.wait_gone(max(0.2, min(2.0, deadline - time.monotonic()))):
                identity.send_signal(signal.SIGKILL)
                identity.wait_gone(1.0)


def end_entry(places: Places, entry: LedgerEntry) -> bool:
    """End what an entry of the ledger stands for, remove its folders, and forget it; True when nothing is left."""
    instance = entry.instance or find_instance(entry)
    is_gone = stop_instance(places, instance) if instance else _end_half_started(entry)
    if not is_gone:
        return False
    _remove_engine_files(
        entry.name,
        Path(entry.record_dir, entry.name),
        (os.path.join(entry.log_dir, f"{entry.name}.out"), os.path.join(entry.log_dir, f"{entry.name}.err")),
    )
    for directory in entry.directories:
        remove_tree(directory)
    ledger.remove_entry(places, entry.name)
    return True


def find_instance(entry: LedgerEntry) -> Instance | None:
    """Find a running instance by its name where the ledger does not know its processes yet: the start was cut off."""
    for stat in iter_stats():
        if stat.comm.startswith("starter") and read_command_line(stat.pid).endswith(f"[{entry.name}]"):
            starter = ProcessIdentity(stat.pid, stat.start_ticks)
            mount_namespace = read_namespace(stat.pid, "mnt")
            init = next((s for s in iter_stats() if s.ppid == stat.pid and s.comm == "appinit"), None)
            if init is None or mount_namespace is None:
                continue
            return Instance(
                name=entry.name,
                image=entry.image,
                init=ProcessIdentity(init.pid, init.start_ticks),
                starter=starter,
                pid_namespace=read_namespace(init.pid, "pid") or 0,
                mount_namespace=mount_namespace,
                record_path=os.path.join(entry.record_dir, entry.name, f"{entry.name}.json"),
                log_paths=(
                    os.path.join(entry.log_dir, f"{entry.name}.out"),
                    os.path.join(entry.log_dir, f"{entry.name}.err"),
                ),
            )
    return None


def _end_half_started(entry: LedgerEntry) -> bool:
    """End the engine's own processes of a start that has no init yet: they carry the instance's name as an argument."""
    uid = os.getuid()
    for stat in iter_stats():
        with suppress(OSError):
            if os.stat(f"/proc/{stat.pid}").st_uid != uid:
                continue
            words = read_command_line(stat.pid).split()
            if entry.name in words and "instance" in words and "start" in words:
                identity = ProcessIdentity(stat.pid, stat.start_ticks)
                identity.send_signal(signal.SIGKILL)
                identity.wait_gone(1.0)
    instance = find_instance(entry)
    return instance is None


def find_leftovers(places: Places) -> list[Leftover]:
    """List the ledger's entries whose owner is gone. Changes nothing."""
    found: list[Leftover] = []
    for entry in ledger.iter_entries(places):
        if entry.owner.is_alive():
            continue
        instance = entry.instance or find_instance(entry)
        pids: tuple[int, ...] = ()
        if instance:
            pids = (instance.init.pid,) if instance.init.is_alive() else ()
            pids += tuple(stat.pid for stat in iter_helpers(instance))
        found.append(Leftover(entry, f"its owner (pid {entry.owner.pid}) is gone", pids))
    return found


def sweep(places: Places) -> list[Leftover]:
    """End all leftovers and remove their files; returns those that were ended."""
    return [leftover for leftover in find_leftovers(places) if end_leftover(places, leftover)]


def end_leftover(places: Places, leftover: Leftover) -> bool:
    """End one of them, and remove the connection file that its owner can remove no more; True when nothing is left."""
    is_gone = end_entry(places, leftover.entry)
    if is_gone and leftover.entry.connection_file:
        with suppress(OSError):
            os.unlink(leftover.entry.connection_file)
    return is_gone


def remove_tree(path: str) -> None:
    """Remove a folder of ours. Files in a kernel's /tmp may be read-only, and folders without permissions."""

    root = os.path.abspath(path)

    def make_writable(function: object, name: str, error: object) -> None:
        # Nothing above the tree is ours to change.
        if not os.path.lexists(name) or not os.path.abspath(name).startswith(root + os.sep):
            return
        with suppress(OSError):
            os.chmod(os.path.dirname(name), 0o700)
            if os.path.isdir(name) and not os.path.islink(name):
                os.chmod(name, 0o700)
                shutil.rmtree(name, ignore_errors=True)
            else:
                os.unlink(name)

    if os.path.lexists(root):
        shutil.rmtree(root, onerror=make_writable)
        # A folder that was not empty at the first try is, now that what was in it could be removed.
        shutil.rmtree(root, ignore_errors=True)


def _remove_engine_files(name: str, record_dir: Path, log_paths: tuple[str, str]) -> None:
    """Remove the engine's record and logs of an instance of ours: it appends to the logs for ever and never deletes them."""
    if not name.startswith("jpa-"):
        return
    for path in (record_dir / f"{name}.json", *map(Path, log_paths)):
        with suppress(OSError):
            path.unlink()
    with suppress(OSError):
        record_dir.rmdir()
