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

from ..engine.lock import hold_lock
from ..places import Places
from . import ledger
from .joined import end_joined
from .lease import claim, find_end, note_orphan, wake_keeper
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
    """End what an entry of the ledger stands for, remove its folders, and forget it; True when nothing is left.

    Of an instance that is shared only this entry's kernel is ended, unless it is the last one.
    """
    if not entry.shared:
        return end_held_entry(places, entry)
    with hold_lock(find_shared_lock(places, entry.shared)):
        return end_held_entry(places, entry)


def end_held_entry(places: Places, entry: LedgerEntry) -> bool:
    """The same for those who hold the lock of a shared instance already."""
    if any(other.name != entry.name for other in ledger.iter_sharers(places, entry.shared)):
        is_gone = _end_kernel(entry)
        directories = entry.directories
    else:
        is_gone = _end_instance(places, entry)
        directories = (*entry.directories, *entry.instance_directories)
    if not is_gone:
        return False
    for directory in directories:
        remove_tree(directory)
    ledger.remove_entry(places, entry.name)
    wake_keeper(entry)
    return True


def find_shared_lock(places: Places, instance_name: str) -> Path:
    """Return the lock file that is held while a shared instance is started, joined or left."""
    return places.ledger / f"{instance_name}.lock"


def _end_kernel(entry: LedgerEntry) -> bool:
    if entry.process is None or entry.instance is None:
        return True
    return end_joined(entry.process, entry.kernel, entry.instance.pid_namespace)


def _end_instance(places: Places, entry: LedgerEntry) -> bool:
    instance = entry.instance
    if instance is None or (entry.shared and not instance.init.is_alive()):
        # Another kernel may have started a shared one anew.
        instance = find_instance(entry) or instance
    is_gone = stop_instance(places, instance) if instance else _end_half_started(places, entry)
    name = entry.instance_name
    if is_gone:
        _remove_engine_files(
            name,
            Path(entry.record_dir, name),
            (os.path.join(entry.log_dir, f"{name}.out"), os.path.join(entry.log_dir, f"{name}.err")),
        )
    return is_gone


def find_instance(entry: LedgerEntry) -> Instance | None:
    """Find a running instance by its name where the ledger does not know its processes yet: the start was cut off."""
    for stat in iter_stats():
        if stat.comm.startswith("starter") and read_command_line(stat.pid).endswith(f"[{entry.instance_name}]"):
            starter = ProcessIdentity(stat.pid, stat.start_ticks)
            mount_namespace = read_namespace(stat.pid, "mnt")
            init = next((s for s in iter_stats() if s.ppid == stat.pid and s.comm == "appinit"), None)
            if init is None or mount_namespace is None:
                continue
            return Instance(
                name=entry.instance_name,
                image=entry.image,
                init=ProcessIdentity(init.pid, init.start_ticks),
                starter=starter,
                pid_namespace=read_namespace(init.pid, "pid") or 0,
                mount_namespace=mount_namespace,
                record_path=os.path.join(entry.record_dir, entry.instance_name, f"{entry.instance_name}.json"),
                log_paths=(
                    os.path.join(entry.log_dir, f"{entry.instance_name}.out"),
                    os.path.join(entry.log_dir, f"{entry.instance_name}.err"),
                ),
            )
    return None


def _end_half_started(places: Places, entry: LedgerEntry) -> bool:
    """End the engine's own processes of a start that has no init yet: they carry the instance's name as an argument."""
    uid = os.getuid()
    for stat in iter_stats():
        with suppress(OSError):
            if os.stat(f"/proc/{stat.pid}").st_uid != uid:
                continue
            words = read_command_line(stat.pid).split()
            if entry.instance_name in words and "instance" in words and "start" in words:
                identity = ProcessIdentity(stat.pid, stat.start_ticks)
                # Shot half-way it would leave processes without a name; left alone it ends within a second.
                if not identity.wait_gone(STOP_TIMEOUT_S):
                    identity.send_signal(signal.SIGKILL)
                    identity.wait_gone(1.0)
    instance = find_instance(entry)
    return instance is None or stop_instance(places, instance)


def find_leftovers(places: Places) -> list[Leftover]:
    """List the ledger's entries whose owner is gone and whose lease, if they have one, is over. Changes nothing."""
    found: list[Leftover] = []
    now = time.time()
    for entry in ledger.iter_entries(places):
        reason = None if entry.owner.is_alive() else find_end(entry, now)
        if reason is None:
            continue
        instance = entry.instance or find_instance(entry)
        pids: tuple[int, ...] = ()
        if instance:
            pids = (instance.init.pid,) if instance.init.is_alive() else ()
            pids += tuple(stat.pid for stat in iter_helpers(instance))
        found.append(Leftover(entry, reason, pids))
    return found


def sweep(places: Places) -> list[Leftover]:
    """End all leftovers and remove their files; returns those that were ended. The leases of the others count from now on."""
    for entry in ledger.iter_entries(places):
        if not entry.owner.is_alive() and entry.persist is not False:
            note_orphan(places, entry)
    ended = [leftover for leftover in find_leftovers(places) if end_leftover(places, leftover)]
    remove_owner_dirs(places)
    return ended


def find_owner_dir(places: Places, owner: ProcessIdentity) -> Path:
    """Return a folder for what an owner of kernels keeps for the next one; it stays while a kernel of it waits."""
    return places.runtime / f"owner-{owner.pid}-{owner.start_ticks}"


def remove_owner_dirs(places: Places) -> None:
    """Remove the folders of owners that are gone, unless a kernel of theirs waits."""
    needed = {find_owner_dir(places, entry.owner) for entry in ledger.iter_entries(places)}
    for path in places.runtime.glob("owner-*-*"):
        pid, _, start_ticks = path.name.removeprefix("owner-").partition("-")
        is_ours = pid.isdigit() and start_ticks.isdigit()
        if is_ours and path not in needed and not ProcessIdentity(int(pid), int(start_ticks)).is_alive():
            remove_tree(str(path))


def end_leftover(places: Places, leftover: Leftover) -> bool:
    """End one of them, and remove the connection file that its owner can remove no more; True when nothing is left.

    It is claimed first, so that nobody can take it over, or end it, at the same time.
    """
    entry = claim(places, leftover.entry.name)
    if entry is None:
        return True
    if not end_entry(places, entry):
        # As it was, for the next one who tries.
        ledger.save_entry(places, leftover.entry)
        return False
    if entry.connection_file:
        with suppress(OSError):
            os.unlink(entry.connection_file)
    return True


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
