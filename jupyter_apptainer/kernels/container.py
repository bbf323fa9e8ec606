"""A kernel in its container, from start to end: one object for the provisioner and for the launch door.

The instance is started once and stays over restarts; each kernel joins it through `exec`. Signals never go to the engine's own
process: for a joined instance it does not forward them but dies, and takes the kernel with it. They go to the kernel itself.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import IO, Any

from ..bridge.listener import BridgeListener
from ..engine.command import strip_ansi
from ..engine.environment import build_engine_environment
from ..engine.options import build_exec
from ..engine.runner import spawn
from ..errors import InstanceBroken, KernelTimeout
from ..instances import keeper, ledger
from ..instances.janitor import end_entry, remove_tree, stop_instance
from ..instances.joined import find_joined, kill_joined
from ..instances.model import FUSE_HELPERS, Instance, LedgerEntry
from ..instances.oom import OomRecord
from ..instances.process import ProcessIdentity, read_children, read_stat
from ..instances.start import EngineFolders, is_healthy, start_instance
from ..instances.watch import wait_readable, watch_exit
from ..places import Places
from . import connection as connections
from .adopted import AdoptedProcess, EngineProcess
from .bridging import open_bridge
from .entry import build_entry
from .folders import make_folders
from .forked import ForkedKernel, NotForked, fork_kernel, wait_ready, wake_server
from .guard import KernelGuard, start_guard
from .limits import running_on
from .outcome import explain_end
from .plan import INSTANCE_LOG, KERNEL_LOG, LaunchPlan, build_start
from .progress import Progress
from .read_ahead import read_ahead
from .resume import save_plan
from .shared import check_joinable, find_host, hold_shared
from .signals import Signaller
from .turns import turns

_LOG_BYTES = 20_000
# The guard of a kernel ends with it, usually at once.
_GLANCE_S = 0.05
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
        kernelspec: str = "",
        connection_file: str = "",
        log: logging.Logger | logging.LoggerAdapter[Any] | None = None,
        start_files: Sequence[str] = (),
        progress: Progress | None = None,
        is_successor: bool = False,
    ) -> None:
        """is_successor: there was a kernel of this id before, in another container, and its clients will connect to this one."""
        self.plan = plan
        self.places = places
        self.log = log or logging.getLogger(__name__)
        self.progress = progress or Progress()
        self.instance: Instance | None = None
        self.process: EngineProcess | None = None
        self._folders = folders
        self._environ = dict(environ)
        self._label = label
        self._kernelspec = kernelspec
        self._connection_file = connection_file
        self._start_files = tuple(start_files)
        self._is_successor = is_successor
        self._starter_program: subprocess.Popen[bytes] | None = None
        self._kernel: ProcessIdentity | None = None
        self._helpers: tuple[ProcessIdentity, ...] = ()
        self._log_start = 0
        self._signaller = Signaller()
        self._entry: LedgerEntry | None = None
        self._guard: KernelGuard | None = None
        self._bridge: BridgeListener | None = None

    # --- start

    async def start(self, connection: Mapping[str, Any], *, timeout_s: float) -> None:
        """Start the kernel, and its instance where none is running, and wait until the kernel listens.

        connection: content of the client's connection file.
        Raises an ApptainerError that says why; a failed start of an instance leaves nothing.
        """
        if self._guard is not None:
            await asyncio.to_thread(self._end_guard)
        was_there = self.instance is not None
        async with turns.take(lambda: self.progress.phase("queue")):
            await self._ensure_instance(timeout_s)
            with self.progress.phase("connect"):
                try:
                    await self._start_kernel(connection, timeout_s)
                except InstanceBroken:
                    if not was_there:
                        raise
                    # It was about to end when it was looked at, and had not ended yet.
                    await self._ensure_instance(timeout_s)
                    await self._start_kernel(connection, timeout_s)
        self._record(phases=dict(self.progress.seconds))

    async def _start_kernel(self, connection: Mapping[str, Any], timeout_s: float) -> None:
        self._open_bridge()
        connections.remove_sockets(connection)
        connections.write_twin(self.plan.connection_file, connection)
        self._kernel = None
        self._signaller = Signaller()
        # The kernel will live in our own cgroup, or below it.
        oom = OomRecord.note(os.getpid())
        with open(self._path(KERNEL_LOG), "ab", opener=_private) as log:
            self._log_start = log.tell()
            self.process = await self._fork(timeout_s) or self._join_instance(log)
        self._record(process=ProcessIdentity.find(self.process.pid), kernel=None)
        if not self._helpers:
            # While the kernel comes up: its instance is complete now.
            self._helpers = self._find_helpers()
        if not await connections.wait_listening(connection, self.process, timeout_s):
            await self._give_up(timeout_s, oom)
        self._record(kernel=self.find_kernel())
        self._start_guard(connection)

    async def _fork(self, timeout_s: float) -> ForkedKernel | None:
        """Have the instance's fork server start the kernel; None where it cannot."""
        if self.plan.fork_server is None or self.instance is None:
            return None
        is_restart = self._is_successor or self.process is not None
        try:
            forked = await fork_kernel(
                self.plan, self.instance, self._path(KERNEL_LOG), timeout_s, is_restart=is_restart
            )
        except NotForked as reason:
            self.log.warning("Instance %s starts this kernel without its fork server: %s", self.instance.name, reason)
            return None
        for module, problem in forked.left_out.items():
            self.log.warning("Instance %s did not preload %s: %s", self.instance.name, module, problem)
        self._kernel = forked.kernel.identity
        return forked.kernel

    def _join_instance(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start the kernel as a process that joins the instance."""
        command = build_exec(
            self.plan.engine,
            f"instance://{self.plan.instance_name}",
            self.plan.kernel_command,
            build_engine_environment(self._environ, self.plan.container_env),
            options=self.plan.options,
            cwd=self.plan.cwd,
        )
        with running_on(self.plan.resources.processors):
            return spawn(command, stdout=log, stderr=log)

    def _start_guard(self, connection: Mapping[str, Any]) -> None:
        kernel = self.find_kernel()
        if kernel is not None and self.process is not None:
            self._guard = start_guard(kernel, self.process, self.plan, self._environ, connection, self.log)

    def _open_bridge(self) -> None:
        """It goes with the instance, and so stays over a restart."""
        if self._bridge is None and self.instance is not None:
            self._bridge = open_bridge(
                self.plan, self.instance, self.log, kernelspec=self._kernelspec, label=self._label
            )

    def _close_bridge(self) -> None:
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            bridge.close()

    def _end_guard(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.dismiss()
            guard.finish()

    def _record(self, **changes: Any) -> None:
        """Change this kernel's entry in the ledger."""
        assert self._entry is not None
        self._entry = replace(self._entry, **changes)
        ledger.save_entry(self.places, self._entry)

    async def _ensure_instance(self, timeout_s: float) -> None:
        broken = None
        if self.instance is not None:
            is_fit = is_healthy(self.instance, self._helpers)
            # Somebody may have ended this kernel alone, in an instance that others go on using.
            if is_fit and ledger.load_entry(self.places, self.plan.entry_name) is not None:
                return
            self.log.warning("Instance %s is gone or broken: starting it anew", self.plan.instance_name)
            broken = None if is_fit else self.instance
            await self.stop()
        with self.progress.phase("instance"):
            async with hold_shared(self.places, self.plan):
                host = find_host(self.places, self.plan.instance_name) if self.plan.is_shared else None
                if host is not None and broken is not None and host.instance == broken:
                    # Broken for all kernels in it: those of others are started again by their owners, in the new one.
                    await asyncio.to_thread(stop_instance, self.places, broken)
                    host = None
                if host is not None:
                    self._join(host)
                else:
                    await self._start_instance(timeout_s)

    def _join(self, host: LedgerEntry) -> None:
        """Use the instance that another kernel runs in."""
        check_joinable(host, self.plan)
        make_folders(self.plan, is_joining=True)
        self._begin_entry()
        self._record(instance=host.instance, unpacked=host.unpacked)
        self.instance = host.instance

    async def _start_instance(self, timeout_s: float) -> None:
        if self.plan.is_shared:
            # The folders of a shared instance have names that stay the same; what a crash left in them is nothing for this one.
            remove_tree(self.plan.scratch_dir)
        make_folders(self.plan)
        root, entry = self._claim_root(self._begin_entry())
        command = build_start(
            self.plan.engine,
            root,
            self.plan.instance_name,
            self.plan.options,
            self.plan.fork_server,
            build_engine_environment(self._environ, self.plan.container_env),
        )
        try:
            started = await start_instance(
                command, entry, self.places, log_path=self._path(INSTANCE_LOG), timeout_s=timeout_s
            )
        except BaseException:
            self._forget()
            raise
        self.instance, self._starter_program = started.instance, started.process
        self._entry = replace(entry, instance=started.instance)
        read_ahead(self.instance.init, self._list_start_files())

    def _claim_root(self, entry: LedgerEntry) -> tuple[str, LedgerEntry]:
        """Return what the engine starts, and the entry that keeps it from going: the image, or an unpacked copy of it."""
        if self.plan.unpacked is None:
            return self.plan.image, entry
        # Loaded only where it is used, as in `prepare`.
        from .unpacked import claim_copy

        return claim_copy(self.plan, entry, self.places)

    def _list_start_files(self) -> Sequence[str]:
        """Return what the kernel will read of its image: no code where that comes in a bundle, and no debugpy before somebody debugs."""
        has_bundle = self.plan.fork_server is not None and self.plan.fork_server.bundle is not None
        code = (".py", ".pyc")
        return [n for n in self._start_files if "/debugpy/" not in n and not (has_bundle and n.endswith(code))]

    def _begin_entry(self) -> LedgerEntry:
        """Make this kernel's entry, and have it looked after should we be killed."""
        if self.plan.persist is not False:
            save_plan(self.places, self.plan)
        _open_kernels.add(self)
        self._entry = replace(
            build_entry(self.plan, self.places, self._folders),
            label=self._label,
            kernelspec=self._kernelspec,
            connection_file=self._connection_file,
            keeper=keeper.hold(self.plan.entry_name),
        )
        return self._entry

    # --- ahead of its kernel

    async def start_ahead(self, *, timeout_s: float) -> None:
        """Start the instance, and have its fork server ready for a kernel that is not known yet.

        Raises an ApptainerError, or NotForked; then nothing is left.
        """
        assert self.plan.fork_server is not None
        await self._ensure_instance(timeout_s)
        assert self.instance is not None
        try:
            await wait_ready(self.plan, self.instance, timeout_s)
        except NotForked:
            await self.stop()
            raise

    def take_up(
        self, plan: LaunchPlan, *, label: str, kernelspec: str, connection_file: str, progress: Progress
    ) -> None:
        """Become the one for a kernel, in the instance that was started ahead. plan: with the names of that instance."""
        assert self._entry is not None
        self.plan, self.progress = plan, progress
        self._label, self._kernelspec, self._connection_file = label, kernelspec, connection_file
        self._begin_entry()
        self._record(instance=self.instance)

    def _forget(self) -> None:
        """The entry is gone."""
        _open_kernels.discard(self)
        keeper.release(self.plan.entry_name)
        self._entry = None

    @classmethod
    def adopt(
        cls, entry: LedgerEntry, plan: LaunchPlan, connection: Mapping[str, Any], **arguments: Any
    ) -> ContainerKernel:
        """Take over a running kernel whose entry this process has claimed. arguments: those of the constructor."""
        kernel = cls(plan, **arguments)
        assert entry.process is not None
        _open_kernels.add(kernel)
        kernel._entry = entry
        kernel._record(keeper=keeper.hold(entry.name), connection_file=kernel._connection_file)
        kernel.instance, kernel._kernel = entry.instance, entry.kernel
        kernel.process = AdoptedProcess(entry.process)
        kernel._helpers = kernel._find_helpers()
        with suppress(OSError):
            kernel._log_start = os.path.getsize(kernel._path(KERNEL_LOG))
        kernel._open_bridge()
        kernel._start_guard(connection)
        return kernel

    def _find_helpers(self) -> tuple[ProcessIdentity, ...]:
        if self.instance is None:
            return ()
        # While the starter lives they are its children, which spares a look at every process of the machine.
        stats = (read_stat(pid) for pid in read_children(self.instance.starter.pid))
        return tuple(
            ProcessIdentity(stat.pid, stat.start_ticks) for stat in stats if stat and stat.comm in FUSE_HELPERS
        )

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
        if isinstance(self.process, ForkedKernel):
            return self.process.identity
        self._kernel = find_joined(self.process.pid, self.instance.pid_namespace)
        return self._kernel

    def send_signal(self, signum: int) -> None:
        """Send a signal to the kernel and to the programs that it started, each exactly once.

        An interrupt that is repeated within 2 s also goes to programs that have left the kernel's group.
        """
        kernel = self.find_kernel()
        if kernel is not None:
            self._signaller.send(kernel, signum)

    def kill(self) -> None:
        """End the kernel and everything it started, at once. The instance stays."""
        if self._guard is not None:
            self._guard.dismiss()
        kernel = self.find_kernel()
        if kernel is not None and self.instance is not None:
            kill_joined(kernel, self.instance.pid_namespace)
        elif self.process is not None and self.process.poll() is None:
            # Not joined yet. SIGKILL of the engine's process is harmless here: nothing is mounted by it.
            self.process.kill()

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

    def expect_restart(self) -> None:
        """The kernel was asked to end, and another one will be asked for: its fork server has time until then."""
        if self.plan.fork_server is not None:
            wake_server(self.plan)

    @property
    def token(self) -> str:
        """What is unique in the names of this kernel's folders."""
        return os.path.basename(self.plan.private_dir)

    def is_ended(self) -> bool:
        """Say whether its own instance is gone: then there is nothing to restart in."""
        return self.instance is not None and not self.plan.is_shared and not self.instance.init.is_alive()

    async def stop(self) -> None:
        """End kernel and instance, and remove all that belongs to them. Stopping twice is no error."""
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self.stop_now))

    def stop_now(self) -> None:
        """The same, blocking; usually some 20 ms."""
        self._end_guard()
        if self._bridge is not None:
            self._bridge.dismiss()
        is_gone = self._entry is None or end_entry(self.places, replace(self._entry, instance=self.instance))
        self._close_bridge()
        if not is_gone:
            self.log.error("Could not end instance %s; `jupyter apptainer gc` will try again", self.plan.instance_name)
        for process in (self.process, self._starter_program):
            if process is not None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(2.0)
        self.instance = None
        self._helpers = ()
        self._starter_program = None
        self._forget()

    def leave(self) -> None:
        """Let the kernel go on without this process, which is about to end: its keeper takes care of the lease."""
        _open_kernels.discard(self)
        self._end_guard()
        self._close_bridge()

    def is_owner(self) -> bool:
        """Say whether this process started the instance: a forked child that ends must not take it along."""
        return self._entry is not None and self._entry.owner == ProcessIdentity.current()

    def _path(self, name: str) -> str:
        return os.path.join(self.plan.private_dir, name)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@atexit.register
def _stop_open_kernels() -> None:
    """A program that ends without shutting its kernels down (a script, an exception) still leaves nothing."""
    for kernel in list(_open_kernels):
        if kernel.is_owner() and kernel.plan.persist is False:
            kernel.stop_now()
