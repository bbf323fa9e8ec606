"""Start an instance, and be able to join it 200 ms before `instance start` returns.

The engine writes the instance's file and then sleeps twice 100 ms (PostStartProcess in internal/pkg/runtime, and the CLI's
starterInstance), so we wait for the file, not for the program. Its exit status is looked at only when the file never comes.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..engine.command import Command, Completed, strip_ansi
from ..engine.diagnose import diagnose
from ..engine.locate import EngineInfo
from ..engine.runner import spawn
from ..errors import CommandTimeout
from ..places import Places
from . import ledger
from .janitor import end_held_entry
from .model import Instance, LedgerEntry
from .process import ProcessIdentity, read_namespace
from .watch import DirectoryWatch, wait_readable, watch_exit

START_TIMEOUT_S = 60.0
_ABANDON_S = 10.0


@dataclass(frozen=True)
class EngineFolders:
    """Where the engine keeps its file about an instance, and the instance's logs."""

    record_dir: str
    log_dir: str


def find_engine_folders(engine: EngineInfo, environ: Mapping[str, str], hostname: str) -> EngineFolders:
    """Compute the engine's folders for this user on this host (pkg/instance of Apptainer and SingularityCE)."""
    prefix = "APPTAINER" if engine.flavour == "apptainer" else "SINGULARITY"
    base = environ.get(f"{prefix}_CONFIGDIR") or os.path.join(
        environ.get("HOME") or os.path.expanduser("~"), engine.dot_folder
    )
    user = getpass.getuser()
    return EngineFolders(
        record_dir=os.path.join(base, "instances", "app", hostname, user),
        log_dir=os.path.join(base, "instances", "logs", hostname, user),
    )


@dataclass
class StartedInstance:
    """A running instance, and the engine's own program, which still has to be reaped."""

    instance: Instance
    process: subprocess.Popen[bytes]


async def start_instance(
    command: Command[None],
    entry: LedgerEntry,
    places: Places,
    *,
    log_path: str,
    timeout_s: float = START_TIMEOUT_S,
) -> StartedInstance:
    """Run `instance start` and return as soon as the instance can be joined.

    entry: what the ledger shall remember; it is written before anything is started, so that a start that is cut off at any
    point can be cleaned up by name; the lock of a shared instance is held. log_path: takes what the engine prints.

    Raises what `diagnose` makes of the engine's words, or CommandTimeout. A failed or cancelled start leaves nothing.
    """
    ledger.save_entry(places, entry)
    record_dir = Path(entry.record_dir, entry.instance_name)
    # The folder is the engine's to make; being there first lets us watch it for the file.
    record_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    record_path = record_dir / f"{entry.instance_name}.json"
    process: subprocess.Popen[bytes] | None = None
    try:
        with DirectoryWatch(str(record_dir)) as watch:
            with open(log_path, "wb", opener=_private) as log:
                process = spawn(command, stderr=log, stdout=log)
            instance = await _wait_for_record(command, process, watch, record_path, entry, log_path, timeout_s)
        ledger.save_entry(places, replace(entry, instance=instance))
        return StartedInstance(instance, process)
    except BaseException:
        # Cancellation comes through here too. In a thread, so that a second one cannot cut it short.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, _abandon, process, entry, places))
        raise


def _abandon(process: subprocess.Popen[bytes] | None, entry: LedgerEntry, places: Places) -> None:
    """Undo a start. The engine's program is not shot: half-way, what it has started has no name yet by which it could be found.

    It ends by itself 0.3 s after it began, and by then there either is an instance with a name, or nothing.
    """
    if process is not None:
        try:
            process.wait(_ABANDON_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    end_held_entry(places, entry)


async def _wait_for_record(
    command: Command[None],
    process: subprocess.Popen[bytes],
    watch: DirectoryWatch,
    record_path: Path,
    entry: LedgerEntry,
    log_path: str,
    timeout_s: float,
) -> Instance:
    deadline = time.monotonic() + timeout_s
    with watch_exit(process.pid) as ended:
        while True:
            watch.drain()
            instance = read_instance(record_path, entry)
            if instance is not None:
                return instance
            if process.poll() is not None:
                raise _explain(command, process.returncode, log_path)
            left = deadline - time.monotonic()
            if left <= 0:
                raise CommandTimeout(
                    f"could not {command.title}: nothing came up in {timeout_s:g} s",
                    hint="try again when the machine is less busy",
                    command=command.render(),
                    log_tail=_read_lines(log_path),
                )
            await wait_readable([watch.fileno(), ended], left)


def _explain(command: Command[None], returncode: int, log_path: str) -> Exception:
    text = "\n".join(_read_lines(log_path))
    completed = Completed(command.argv, returncode, "", text)
    return diagnose(completed, title=command.title, subject=command.subject, shown=command.render())


def read_instance(record_path: Path, entry: LedgerEntry) -> Instance | None:
    """Read the engine's file about an instance; None while it is not there, half written, or its processes are gone."""
    try:
        record = json.loads(record_path.read_text())
    except (OSError, ValueError):
        return None
    init = ProcessIdentity.find(int(record["pid"]))
    starter = ProcessIdentity.find(int(record["ppid"]))
    if init is None or starter is None:
        return None
    pid_namespace = read_namespace(init.pid, "pid")
    mount_namespace = read_namespace(starter.pid, "mnt")
    if pid_namespace is None or mount_namespace is None:
        return None
    return Instance(
        name=entry.instance_name,
        image=entry.image,
        init=init,
        starter=starter,
        pid_namespace=pid_namespace,
        mount_namespace=mount_namespace,
        record_path=str(record_path),
        log_paths=(record["logOutPath"], record["logErrPath"]),
    )


def _read_lines(path: str) -> list[str]:
    with suppress(OSError):
        return strip_ansi(Path(path).read_text(errors="replace")).splitlines()
    return []


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def is_healthy(instance: Instance, helpers: Iterable[ProcessIdentity] = ()) -> bool:
    """Say whether the instance can take a kernel: its processes run, and those that serve its file systems.

    helpers: its FUSE helpers as they were at the start. `instance list` goes on showing an instance whose helper died, and what
    is cached can still be read, so only the processes tell.
    """
    return all(process.is_alive() for process in (instance.init, instance.starter, *helpers))


async def reap(process: subprocess.Popen[bytes], timeout_s: float = 5.0) -> None:
    """Wait for the engine's program, which ends by itself a moment after the instance is up."""
    with suppress(subprocess.TimeoutExpired):
        await asyncio.to_thread(process.wait, timeout_s)
