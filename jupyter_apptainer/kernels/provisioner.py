"""`apptainer-provisioner`: what JupyterLab, Notebook, nbclient, papermill and every other user of jupyter_client come through.

Thin: jupyter_client's calls are translated for `ContainerKernel`, errors for Jupyter's dialog. Only `cleanup(restart=False)`
ends the instance: `kill` and `terminate` do not learn whether a restart is meant (jupyter_client#1061).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import zmq
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.multikernelmanager import MultiKernelManager
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from tornado.web import HTTPError
from traitlets import Dict
from traitlets.config import Config

from ..config import ApptainerConfig, load_config
from ..engine.cancel import Cancellation
from ..errors import ApptainerError, ConnectionImpossible, SpecError
from ..images.probe import is_python_command
from ..instances.janitor import sweep
from ..places import find_places
from .attach import attach, find_orphan
from .connection import build_ipc_prefix
from .container import ContainerKernel
from .events import Announcer
from .kernelspecs import get_kernelspec
from .notebook import find_notebook
from .parameters import check_parameters
from .paths import map_to_host
from .prepare import Preparation, prepare_launch, read_wish
from .progress import Progress
from .signing import stop_signing
from .spares import pool as spares
from .starts import STARTS, Start

# How long we look for the kernel's end before jupyter_client's own patience begins.
END_PATIENCE_S = 1.0


class StartFailed(RuntimeError, HTTPError):
    """Why a kernel did not start, as text for people; `error` is for programs.

    jupyter_server passes the text of any exception on when a session is asked for, but only that of an HTTPError when a kernel is.
    It shows the text in its dialog with per cent signs doubled, so there are none in it.
    """

    def __init__(self, error: ApptainerError) -> None:
        HTTPError.__init__(self, 500, error.render())
        self.error = error

    def __str__(self) -> str:
        return self.error.render()


class ApptainerProvisioner(KernelProvisionerBase):
    """Runs a kernel in an Apptainer instance. The fields of its `config` in kernel.json are described in the reference."""

    container: Dict[str, Any] = Dict(help="The container's configuration, as kernel.json has it.")

    def __init__(self, **kwargs: Any) -> None:
        # jupyter_client passes the config as keyword arguments. They become one trait, checked as a whole at the start, so that
        # a wrong field is reported in a message and not as a traceback from traitlets.
        known = {"kernel_id", "kernel_spec", "parent", "config", "log", "container"}
        container = {name: kwargs.pop(name) for name in list(kwargs) if name not in known}
        super().__init__(**kwargs, container=container)
        self.kernel: ContainerKernel | None = None
        self.connection_info: KernelConnectionInfo = {}
        self._preparation: Preparation | None = None
        self._spare: ContainerKernel | None = None
        self._progress = Progress()
        self._is_attaching = False
        self._has_run = False
        self._is_done = False
        self._is_watched = False
        self._is_autorestart = False
        self._start = Start("", "")
        self._dropping: asyncio.Future[None] | None = None
        merged = load_config()
        merged.merge(self.config if isinstance(self.config, Config) else Config())
        self.settings = ApptainerConfig(config=merged)

    # --- what jupyter_client calls before and during the start

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Check everything, make the plan (at the first start), and set up the connection."""
        manager: Any = self.parent
        self._start = STARTS.begin(self.kernel_id or "", manager.kernel_name)
        try:
            return await self._start.run(self._get_ready(kwargs))
        except ApptainerError as error:
            await self._give_back_spare()
            raise self._for_dialog(error) from None

    async def _get_ready(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        if self.kernel is None or self.kernel.is_ended():
            self._progress = Progress(Announcer(self.parent, self.kernel_id or "", self.log))
        extra = kwargs.pop("extra_arguments", None) or []
        encryption = kwargs.pop("transport_encryption", None)
        notebook, chosen = kwargs.pop("notebook", None), kwargs.pop("parameters", None)
        kwargs = await super().pre_launch(cmd=list(self.kernel_spec.argv), **kwargs)
        token = await self._forget_ended()
        if self.kernel is None:
            await self._attach()
        if self.kernel is None:
            cancellation = Cancellation()
            with cancellation.covering():
                prepare = asyncio.to_thread(self._prepare, kwargs, extra, notebook, chosen, token)
                preparing = asyncio.ensure_future(prepare)
            try:
                self._preparation = await asyncio.shield(preparing)
            except asyncio.CancelledError:
                self._progress.abandon()
                # What it asks the image is ended; of anything else that the thread still does nobody takes the result.
                cancellation.cancel()
                preparing.add_done_callback(self._drop)
                raise
            self._connect(self._preparation, encryption)
        manager: Any = self.parent
        manager.write_connection_file(jupyter_session=kwargs.get("env", {}).get("JPY_SESSION_NAME", ""))
        self.connection_info = manager.get_connection_info()
        # In message mode jupyter_client would send its interrupt past us. From the host we reach the kernel and its children
        # exactly once, also while a C extension holds the interpreter's lock and listens to nothing but signals. Kernels of
        # other languages may know nothing but messages, so for them it stays as their kernel.json has it.
        if self._preparation and is_python_command(self._preparation.spec.command):
            self.kernel_spec.interrupt_mode = "signal"
        return kwargs

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the instance where none runs, and the kernel in it; return when the kernel listens."""
        if self._is_attaching:
            self._is_attaching = False
            self._has_run = True
            STARTS.forget(self.kernel_id or "")
            return self.connection_info
        is_new = False
        if self.kernel is None:
            preparation = self._preparation
            assert preparation is not None
            self.kernel = self._build_kernel(preparation)
            is_new = True
        for warning in self.kernel.plan.warnings:
            self.log.warning("Container kernel %s: %s", self.kernel_id, warning)
        try:
            await self._start.run(self._start_kernel(self.kernel))
        except ApptainerError as error:
            raise self._for_dialog(error) from None
        except asyncio.CancelledError:
            # It may have come when the kernel had just been started.
            await self._give_up()
            raise
        STARTS.forget(self.kernel_id or "")
        self._is_done = False
        self._has_run = True
        for setting in self._preparation.settings if self._preparation else ():
            if setting.origin != "kernel.json":
                self.log.info(
                    "Kernel %s: %s is %s, from the %s", self.kernel_id, setting.name, setting.value, setting.origin
                )
        self.log.info(
            "Kernel %s runs in %s (%s)",
            self.kernel_id,
            self.kernel.plan.instance_name,
            self._progress.describe(),
        )
        if is_new:
            self._provide_spare()
            self._unpack_image()
        return self.connection_info

    def _build_kernel(self, preparation: Preparation) -> ContainerKernel:
        label = preparation.environ.get("JPY_SESSION_NAME") or self.kernel_spec.display_name
        kernelspec = self.parent.kernel_name if self.parent else ""
        connection_file = self.parent.connection_file if self.parent else ""
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.take_up(
                preparation.plan,
                label=label,
                kernelspec=kernelspec,
                connection_file=connection_file,
                progress=self._progress,
            )
            return spare
        probe = preparation.probe
        return ContainerKernel(
            preparation.plan,
            places=preparation.places,
            folders=preparation.folders,
            environ=os.environ,
            label=label,
            kernelspec=kernelspec,
            connection_file=connection_file,
            progress=self._progress,
            log=self.log,
            start_files=probe.start_files if probe and self.settings.read_ahead else (),
            is_successor=self._has_run,
        )

    def _provide_spare(self) -> None:
        """Have a container ready for the next kernel like this one, where a server may have more of them."""
        manager: Any = self.parent
        if self._preparation is not None and isinstance(manager.parent, MultiKernelManager):
            spares.provide(
                self._preparation,
                limit=self.settings.spare_containers,
                idle_s=self.settings.spare_idle_s,
                timeout_s=self.settings.start_timeout_s,
                log=self.log,
            )

    def _unpack_image(self) -> None:
        """Have an unpacked copy of the image made for later starts, where the settings allow some disk for that. Returns at once."""
        if self._preparation is not None and self._preparation.plan.unpacked_note:
            # Loaded only where it is wished for, as in `prepare`.
            from .unpacking import start_unpacking

            start_unpacking(self._preparation, self.settings, self.log)

    async def _start_kernel(self, kernel: ContainerKernel) -> None:
        try:
            await kernel.start(self.connection_info, timeout_s=self.settings.start_timeout_s)
        except (ApptainerError, asyncio.CancelledError):
            await self._give_up()
            raise

    async def post_launch(self, **kwargs: Any) -> None:
        """Called when the kernel runs and the server's restarter, if there is one, watches it."""
        await super().post_launch(**kwargs)
        self._is_autorestart = False
        if not self._is_watched:
            manager: Any = self.parent
            manager.add_restart_callback(self._note_autorestart, "restart")
            self._is_watched = True

    def _note_autorestart(self) -> None:
        self._is_autorestart = True

    async def _forget_ended(self) -> str | None:
        """Where its instance is gone, the settings are read anew; returns what keeps the sockets where clients look for them."""
        if self.kernel is None or not self.kernel.is_ended():
            return None
        self.log.warning("Instance %s is gone or broken: starting it anew", self.kernel.plan.instance_name)
        token = self.kernel.token
        await self.cleanup()
        return token

    async def _attach(self) -> None:
        """Where a kernel with our id has outlived its server, take it over instead of starting one."""
        manager: Any = self.parent
        places = find_places()
        entry = await asyncio.to_thread(find_orphan, places, self.kernel_id or "", manager.kernel_name)
        if entry is None:
            return
        self.kernel, connection = await asyncio.to_thread(
            attach,
            places,
            entry,
            environ=os.environ,
            connection_file=manager.connection_file,
            progress=self._progress,
            log=self.log,
        )
        manager.cache_ports = False
        manager.load_connection_info(connection)
        self._is_attaching = True
        self.log.info("Kernel %s runs already, in %s", self.kernel_id, entry.instance_name)

    def _prepare(
        self,
        kwargs: dict[str, Any],
        extra: list[str],
        notebook: str | None,
        chosen: dict[str, object] | None,
        token: str | None,
    ) -> Preparation:
        for leftover in sweep(find_places()):
            self.log.warning("Ended %s: %s", leftover.entry.name, leftover.reason)
        environ = kwargs["env"]
        base_dir = self.kernel_spec.resource_dir or os.getcwd()
        path = os.path.abspath(notebook) if notebook else find_notebook(environ, os.environ, self._find_root())
        parameters = None if chosen is None else check_parameters(chosen, self.kernel_spec.metadata)
        self._start.label = path or environ.get("JPY_SESSION_NAME") or ""
        self._start.read_wish = partial(
            read_wish,
            self.container,
            settings=self.settings,
            environ=environ,
            base_dir=base_dir,
            kernelspec_env=self.kernel_spec.env,
            notebook=path,
            parameters=parameters,
        )
        preparation = prepare_launch(
            self._read_config(),
            settings=self.settings,
            kernel_id=self.kernel_id or "",
            cwd=os.path.abspath(kwargs.get("cwd") or os.getcwd()),
            environ=environ,
            base_dir=base_dir,
            kernelspec_env=self.kernel_spec.env,
            extra_arguments=extra,
            notebook=path,
            parameters=parameters,
            token=token,
            on_progress=lambda text: self.log.info("Kernel %s: %s", self.kernel_id, text),
            progress=self._progress,
        )
        # The sockets of a kernel that comes after another one are where clients look for them, and no spare has them there.
        is_wanted = self.settings.spare_containers > 0 and token is None
        taken = spares.take(preparation) if is_wanted else None
        self._spare = taken.kernel if taken else None
        return taken.preparation if taken else preparation

    def _read_config(self) -> Mapping[str, Any]:
        """A new container of a kernel that has run is made of what kernel.json says now: the server has read it before."""
        manager: Any = self.parent
        if not self._has_run or manager is None:
            return self.container
        try:
            found = get_kernelspec(manager.kernel_name)
        except SpecError:
            return self.container
        return found.config if str(found.folder) == self.kernel_spec.resource_dir else self.container

    def _find_root(self) -> str | None:
        """Return the folder that the server shows; None where no server but a program starts the kernel."""
        manager: Any = self.parent
        return getattr(manager.parent, "root_dir", None) or None

    def _connect(self, preparation: Preparation, encryption: str | bool | None) -> None:
        """Choose sockets or encrypted ports, and tell the kernel manager."""
        manager: Any = self.parent
        manager.cache_ports = False
        wants_tcp = self.settings.transport == "tcp"
        if not wants_tcp:
            manager.transport = "ipc"
            manager.ip = build_ipc_prefix(preparation.plan.private_dir)
        policy = encryption if encryption is not None else getattr(manager, "transport_encryption", "disabled")
        probe = preparation.probe
        can_encrypt = probe is not None and probe.has_curve
        if wants_tcp and not can_encrypt:
            found = probe.ipykernel if probe else "none"
            raise ConnectionImpossible(
                f"tcp was asked for, but the image's ipykernel ({found}) cannot encrypt it, and an open port is never used",
                hint="use ipykernel 7.3 or newer in the image, or `ApptainerConfig.transport = 'ipc'`",
            )
        if policy == "required" and not can_encrypt:
            raise ConnectionImpossible(
                "this server requires encrypted kernel connections, and the image's ipykernel cannot encrypt",
                hint="use ipykernel 7.3 or newer in the image",
            )
        if (wants_tcp or policy in ("required", "auto", True)) and can_encrypt and manager.curve_publickey is None:
            manager.curve_publickey, manager.curve_secretkey = zmq.curve_keypair()
        is_plain = not wants_tcp and manager.curve_publickey is None
        # Clients of an earlier kernel of this manager have its key already.
        if is_plain and not self.settings.sign_ipc_messages and not self._has_run:
            stop_signing(manager, preparation.spec.command)

    def _for_dialog(self, error: ApptainerError) -> StartFailed:
        """The kernel manager logs what it is given with its traceback, so a second one is for those who look for our bugs."""
        self.log.debug("The start of kernel %s failed", self.kernel_id, exc_info=error)
        self._start.fail(error)
        self._progress.fail(error)
        if self._is_autorestart:
            self._is_autorestart = False
            self._declare_dead()
        return StartFailed(error)

    def _declare_dead(self) -> None:
        """Tell the front ends that nothing will come back.

        jupyter_client's restarter stops before each restart and tries again only while a process is there, so after a launch
        that raises they would show "restarting" for ever.
        """
        manager: Any = self.parent
        for callback in list(manager._restarter.callbacks["dead"]):
            callback()

    def _drop(self, preparing: asyncio.Future[Preparation]) -> None:
        """What was prepared for a start that was cancelled in the meantime."""
        if not preparing.cancelled() and preparing.exception() is None:
            self._dropping = asyncio.ensure_future(self._give_back_spare())

    async def _give_back_spare(self) -> None:
        """It has been made this kernel's, and there is none."""
        spare, self._spare = self._spare, None
        if spare is not None:
            await spare.stop()

    async def _give_up(self) -> None:
        if self.kernel is not None:
            await self.kernel.stop()
            self.kernel = None
        self._preparation = None
        manager: Any = self.parent
        manager.cleanup_connection_file()

    # --- while it runs

    @property
    def has_process(self) -> bool:
        """A kernel was launched and its end has not been collected yet."""
        return self.kernel is not None and self.kernel.process is not None and not self._is_done

    async def poll(self) -> int | None:
        """None while the kernel runs, else its exit status."""
        return self.kernel.poll() if self.kernel and self.has_process else 0

    async def wait(self) -> int | None:
        """Wait for the kernel's end; afterwards `has_process` is False."""
        if self.kernel is None or not self.has_process:
            return 0
        returncode = await self.kernel.wait()
        self._is_done = True
        return returncode

    async def send_signal(self, signum: int) -> None:
        """Deliver a signal to the kernel and its children, once each; never to the engine's process."""
        if self.kernel is not None and self.has_process:
            self.kernel.send_signal(signum)

    async def shutdown_requested(self, restart: bool = False) -> None:
        """Called when the kernel was asked to end: return as soon as it has, or after a second, when Jupyter takes over."""
        if restart and self.kernel is not None:
            self.kernel.expect_restart()
        await self._wait_briefly()

    async def kill(self, restart: bool = False) -> None:
        """End the kernel and what it started. The instance stays: a restart may follow."""
        if self.kernel is not None:
            self.kernel.kill()
            await self._wait_briefly()

    async def _wait_briefly(self) -> None:
        """Wait for the end by an event. jupyter_client would look every 100 ms, for which a restart and a shutdown wait."""
        if self.kernel is not None and self.has_process:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.kernel.wait(), END_PATIENCE_S)

    async def terminate(self, restart: bool = False) -> None:
        """Ask the kernel to end."""
        await self.send_signal(15)

    async def cleanup(self, restart: bool = False) -> None:
        """End the instance and remove its files, unless a restart follows. May be called before any start."""
        if restart or self.kernel is None:
            return
        kernel, self.kernel = self.kernel, None
        self._preparation = None
        await kernel.stop()

    # --- information

    @property
    def is_persistent(self) -> bool:
        """The kernel outlives this process."""
        return self.kernel is not None and self.kernel.plan.persist is not False

    def resolve_path(self, path: str) -> str | None:
        """Translate a path of the container into the host's, so that a click in a traceback opens the file."""
        return map_to_host(path, self.kernel.plan) if self.kernel else None

    async def get_provisioner_info(self) -> dict[str, Any]:
        """What a later process needs to find this kernel."""
        info: dict[str, Any] = await super().get_provisioner_info()
        info["container"] = dict(self.container)
        if self.kernel is not None:
            info["instance_name"] = self.kernel.plan.instance_name
        return info

    async def load_provisioner_info(self, provisioner_info: dict[str, Any]) -> None:
        """Take up what `get_provisioner_info` gave."""
        await super().load_provisioner_info(provisioner_info)
        self.container = provisioner_info["container"]
