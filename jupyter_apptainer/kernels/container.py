"""A kernel in its container, from start to end: one object for the provisioner and for the launch door.

The instance is started once and stays over restarts; each kernel joins it through `exec`. Signals never go to the engine's own
process: for a joined instance it does not forward them but dies, and takes the kernel with it. They go to the kernel itself.
"""

from __future__ import annotations

import asyncio
import atexit
import errno
import logging
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..engine.command import strip_ansi
from ..engine.environment import build_engine_environment
from ..engine.options import build_exec, build_instance_start
from ..engine.runner import spawn
from ..errors import (
    DiskFull,
    KernelTimeout,
    LaunchError,
)
from ..images.probe import is_python_command
from ..instances.janitor import end_entry, remove_tree
from ..instances.model import FUSE_HELPERS, Instance, LedgerEntry
from ..instances.oom import OomRecord
from ..instances.process import ProcessIdentity, find_descendants, iter_stats, read_children, read_namespace, read_stat
from ..instances.start import EngineFolders, is_healthy, start_instance
from ..instances.watch import wait_readable, watch_exit
from ..places import Places, make_private_dir
from . import connection as connections
from .guard import KernelGuard, start_guard
from .limits import running_on
from .outcome import explain_end
from .plan import INSTANCE_LOG, KERNEL_LOG, SESSION_SCRIPT, SHIM, LaunchPlan

# A second interrupt within this time means that the first one had no effect.
ESCALATION_S = 2.0
_LOG_BYTES = 20_000
# The guard of a kernel ends with it, usually at once.
_GLANCE_S = 0.05
_HERE = Path(__file__).parent
_open_kernels: set[ContainerKernel] = set()


class ContainerKernel:
    """One kernel and the instance that it runs in. Not started by the constructor."""

    def __init__(
        self,
        plan: LaunchPlan,
        *,
        places: Places,
        folders: EngineFolders,
        environ: Mapping[str, str],
        label: str = "",
        connection_file: str = "",
        log: logging.Logger | logging.LoggerAdapter[Any] | None = None,
        read_ahead: Sequence[str] = (),
    ) -> None:
        self.plan = plan
        self.places = places
        self.log = log or logging.getLogger(__name__)
        self.phases: dict[str, float] = {}
        self.instance: Instance | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._folders = folders
        self._environ = dict(environ)
        self._label = label
        self._connection_file = connection_file
        self._read_ahead = tuple(read_ahead)
        self._starter_program: subprocess.Popen[bytes] | None = None
        self._kernel: ProcessIdentity | None = None
        self._helpers: tuple[ProcessIdentity, ...] = ()
        self._log_start = 0
        self._interrupts: list[float] = []
        self._entry: LedgerEntry | None = None
        self._guard: KernelGuard | None = None

    # --- start

    async def start(self, connection: Mapping[str, Any], *, timeout_s: float) -> None:
        """Start the kernel, and its instance where none is running, and wait until the kernel listens.

        connection: content of the client's connection file.
        Raises an ApptainerError that says why; a failed start of an instance leaves nothing.
        """
        if self._guard is not None:
            await asyncio.to_thread(self._end_guard)
        await self._ensure_instance(timeout_s)
        connections.remove_sockets(connection)
        connections.write_twin(self.plan.connection_file, connection)
        began = time.monotonic()
        self._kernel = None
        self._interrupts.clear()
        # The kernel will live in our own cgroup, or below it.
        oom = OomRecord.note(os.getpid())
        with open(self._path(KERNEL_LOG), "ab", opener=_private) as log:
            command = build_exec(
                self.plan.engine,
                f"instance://{self.plan.instance_name}",
                self.plan.kernel_command,
                build_engine_environment(self._environ, self.plan.container_env),
                options=self.plan.options,
                cwd=self.plan.cwd,
            )
            self._log_start = log.tell()
            with running_on(self.plan.resources.processors):
                self.process = spawn(command, stdout=log, stderr=log)
        if not self._helpers:
            # While the kernel comes up: its instance is complete now.
            self._helpers = self._find_helpers()
        if not await connections.wait_listening(connection, self.process, timeout_s):
            await self._give_up(timeout_s, oom)
        self.phases["connect"] = time.monotonic() - began
        self._start_guard(connection)

    def _start_guard(self, connection: Mapping[str, Any]) -> None:
        kernel = self.find_kernel()
        if kernel is not None and self.process is not None:
            self._guard = start_guard(kernel, self.process, self.plan, self._environ, connection, self.log)

    def _end_guard(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.dismiss()
            guard.finish()

    async def _ensure_instance(self, timeout_s: float) -> None:
        if self.instance is not None:
            if is_healthy(self.instance, self._helpers):
                return
            self.log.warning("Instance %s is gone or broken: starting it anew", self.plan.instance_name)
            await self.stop()
        began = time.monotonic()
        try:
            self._prepare_files()
        except OSError as error:
            for folder in (self.plan.private_dir, self.plan.scratch_dir):
                remove_tree(folder)
            if error.errno == errno.ENOSPC:
                raise DiskFull(f"no space left on the disk of {error.filename or self.plan.private_dir}") from error
            raise LaunchError(
                f"could not make the kernel's folders: {error}",
                hint="set XDG_RUNTIME_DIR and TMPDIR to folders that are yours",
            ) from error
        entry = LedgerEntry(
            name=self.plan.instance_name,
            image=self.plan.image,
            owner=ProcessIdentity.current(),
            kernel_id=self.plan.kernel_id,
            label=self._label,
            started_at=time.time(),
            record_dir=self._folders.record_dir,
            log_dir=self._folders.log_dir,
            directories=(self.plan.private_dir, self.plan.scratch_dir),
            connection_file=self._connection_file,
            overlays=tuple(flag for flag in self.plan.options.overlays if not flag.endswith(":ro")),
        )
        self._entry = entry
        _open_kernels.add(self)
        command = build_instance_start(
            self.plan.engine,
            self.plan.image,
            self.plan.instance_name,
            self.plan.options,
            build_engine_environment(self._environ, self.plan.container_env),
        )
        try:
            started = await start_instance(
                command, entry, self.places, log_path=self._path(INSTANCE_LOG), timeout_s=timeout_s
            )
        except BaseException:
            _open_kernels.discard(self)
            raise
        self.instance, self._starter_program = started.instance, started.process
        self.phases["instance"] = time.monotonic() - began
        if self._read_ahead:
            threading.Thread(
                target=_read_files, args=(self.instance.init, self._read_ahead), name="read-ahead", daemon=True
            ).start()

    def _find_helpers(self) -> tuple[ProcessIdentity, ...]:
        if self.instance is None:
            return ()
        # While the starter lives they are its children, which spares a look at every process of the machine.
        stats = (read_stat(pid) for pid in read_children(self.instance.starter.pid))
        return tuple(
            ProcessIdentity(stat.pid, stat.start_ticks) for stat in stats if stat and stat.comm in FUSE_HELPERS
        )

    def _prepare_files(self) -> None:
        for folder in (self.plan.private_dir, self.plan.scratch_dir):
            make_private_dir(Path(folder).parent)
            make_private_dir(Path(folder))
        for planned in self.plan.files:
            path = Path(planned.path)
            if planned.kind == "link":
                path.symlink_to(planned.target)
            elif planned.kind == "mountpoint" and not os.path.isdir(planned.target):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            else:
                path.mkdir(parents=True, exist_ok=True)
        script = SHIM if is_python_command(self.plan.kernel_command) else SESSION_SCRIPT
        shutil.copyfile(_HERE / script, self._path(script))

    async def _give_up(self, timeout_s: float, oom: OomRecord) -> None:
        """The kernel does not listen: end it, say why. The caller decides about the instance."""
        assert self.process is not None
        returncode = self.process.poll()
        if returncode is None:
            self.kill()
            await self.wait()
            raise KernelTimeout(
                f"the kernel in {self.plan.image} did not listen after {timeout_s:g} s",
                hint="raise `ApptainerConfig.start_timeout_s` where the machine is slow, or look at the last lines",
                log_tail=self.read_log(),
            )
        raise explain_end(self.plan, self.instance, returncode, self.read_log(), oom)

    def read_log(self) -> list[str]:
        """Return the last lines that the kernel's process printed itself, since its own start."""
        try:
            with open(self._path(KERNEL_LOG), "rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                stream.seek(max(self._log_start, size - _LOG_BYTES))
                text = stream.read().decode("utf-8", "replace")
        except OSError:
            return []
        return [line for line in strip_ansi(text).splitlines() if line.strip()]

    # --- while it runs

    def find_kernel(self) -> ProcessIdentity | None:
        """Return the kernel's own process on the host: the engine's only child, in the instance's PID namespace."""
        if self._kernel is not None and self._kernel.is_alive():
            return self._kernel
        if self.process is None or self.process.poll() is not None or self.instance is None:
            return None
        for pid in read_children(self.process.pid):
            if read_namespace(pid, "pid") == self.instance.pid_namespace:
                self._kernel = ProcessIdentity.find(pid)
                return self._kernel
        return None

    def send_signal(self, signum: int) -> None:
        """Send a signal to the kernel and to the programs that it started, each exactly once.

        An interrupt that is repeated within 2 s also goes to programs that have left the kernel's group.
        """
        kernel = self.find_kernel()
        if kernel is None:
            return
        if signum != signal.SIGINT:
            self._signal_group(kernel, signum)
            return
        now = time.monotonic()
        self._interrupts = [at for at in self._interrupts if now - at < ESCALATION_S] + [now]
        self._signal_group(kernel, signum)
        if len(self._interrupts) > 1:
            group = read_stat(kernel.pid)
            for stat in find_descendants(kernel.pid):
                if group and stat.pgid != group.pgid:
                    ProcessIdentity(stat.pid, stat.start_ticks).send_signal(signum)

    def _signal_group(self, kernel: ProcessIdentity, signum: int) -> None:
        stat = read_stat(kernel.pid)
        if stat is None or stat.start_ticks != kernel.start_ticks:
            return
        if stat.pgid == kernel.pid:
            with suppress(ProcessLookupError):
                os.killpg(kernel.pid, signum)
            return
        # No session of its own: an image without setsid. The group is then the engine's, whose process must be left alone.
        kernel.send_signal(signum)
        for child in find_descendants(kernel.pid):
            ProcessIdentity(child.pid, child.start_ticks).send_signal(signum)

    def kill(self) -> None:
        """End the kernel and everything it started, at once. The instance stays."""
        if self._guard is not None:
            self._guard.dismiss()
        kernel = self.find_kernel()
        if kernel is None:
            if self.process is not None and self.process.poll() is None:
                # Not joined yet. SIGKILL of the engine's process is harmless here: nothing is mounted by it.
                self.process.kill()
            return
        victims = find_descendants(kernel.pid)
        victims += [s for s in iter_stats() if s.session == kernel.pid and s.pid != kernel.pid]
        kernel.send_signal(signal.SIGKILL)
        for stat in victims:
            ProcessIdentity(stat.pid, stat.start_ticks).send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """Return None while the kernel runs, else its exit status, negative for a signal."""
        if self._starter_program is not None:
            # Reaps it: it ends about 200 ms after the instance is up.
            self._starter_program.poll()
        returncode = None if self.process is None else self.process.poll()
        if returncode is not None and self._guard is not None and not self._guard.finish(_GLANCE_S):
            # It says why, and a restart would cut that short.
            return None
        return returncode

    async def wait(self) -> int:
        """Wait until the kernel's process has ended, reap it, and return its exit status."""
        process = self.process
        if process is None:
            return 0
        with watch_exit(process.pid) as ended:
            while (returncode := process.poll()) is None:
                await wait_readable([ended], 60.0)
        if self._guard is not None:
            await asyncio.to_thread(self._guard.finish)
        return returncode

    # --- end

    async def stop(self) -> None:
        """End kernel and instance, and remove all that belongs to them. Stopping twice is no error."""
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self.stop_now))

    def stop_now(self) -> None:
        """The same, blocking; usually some 20 ms."""
        self._end_guard()
        entry = self._entry
        if entry is not None and not end_entry(self.places, replace(entry, instance=self.instance)):
            self.log.error("Could not end instance %s; `jupyter apptainer gc` will try again", self.plan.instance_name)
        for process in (self.process, self._starter_program):
            if process is not None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(2.0)
        self.instance = None
        self._helpers = ()
        self._entry = None
        self._starter_program = None
        _open_kernels.discard(self)

    def is_owner(self) -> bool:
        """Say whether this process started the instance: a forked child that ends must not take it along."""
        return self._entry is not None and self._entry.owner == ProcessIdentity.current()

    def _path(self, name: str) -> str:
        return os.path.join(self.plan.private_dir, name)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _read_files(init: ProcessIdentity, files: Sequence[str]) -> None:
    """Read files of the image through the instance's own mount, so that they are in memory when the kernel asks."""
    for name in files:
        if not init.is_alive():
            return
        try:
            with open(f"/proc/{init.pid}/root{name}", "rb", buffering=0) as stream:
                while stream.read(1 << 20):
                    pass
        except OSError:
            continue


@atexit.register
def _stop_open_kernels() -> None:
    """A program that ends without shutting its kernels down (a script, an exception) still leaves nothing."""
    for kernel in list(_open_kernels):
        if kernel.is_owner():
            kernel.stop_now()
