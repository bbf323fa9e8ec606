"""The ways to run a kernel that are compared, each as a kernelspec that an ordinary kernel manager starts.

local: ipykernel of the same versions as the image's. container: this project. recipe: the kernel.json that people paste,
`apptainer exec IMAGE python -m ipykernel_launcher`, started by Jupyter's own provisioner. lent: this project, with the image's
bare Python, to which an ipykernel is lent.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.multikernelmanager import AsyncMultiKernelManager
from traitlets.config import Config

from jupyter_apptainer.engine.locate import EngineInfo, run_flags
from jupyter_apptainer.instances.model import FUSE_HELPERS, Instance
from jupyter_apptainer.instances.process import ProcessIdentity, iter_stats
from jupyter_apptainer.kernels.kernelspecs import PROVISIONER
from jupyter_apptainer.kernels.provisioner import ApptainerProvisioner

WayName = Literal["local", "container", "recipe", "lent"]
TIMEOUT_S = 120.0
SHARED = "shared"


@dataclass(frozen=True)
class Way:
    """One way to run a kernel. Its kernelspec, `name` if not said otherwise, lies in `folder`; the kernel works in `cwd`.

    is_server: it is started as a server starts it, one of many.
    """

    name: WayName
    folder: Path
    cwd: Path
    settings: Config = field(default_factory=Config)
    kernelspec: str = ""
    is_server: bool = False

    def build_manager(self) -> AsyncKernelManager:
        """Return a kernel manager that has started nothing yet."""
        specs = KernelSpecManager(kernel_dirs=[str(self.folder)], ensure_native_kernel=False)
        return AsyncKernelManager(
            kernel_name=self.kernelspec or self.name,
            kernel_spec_manager=specs,
            config=self.settings,
            parent=AsyncMultiKernelManager(config=self.settings) if self.is_server else None,
        )

    def rest(self) -> Way:
        """Return the way in which a fork server gives back its memory after one second, and not after ten."""
        settings = Config({"ApptainerConfig": {"fork_rest_s": 1.0}})
        settings.ApptainerConfig.merge(self.settings.ApptainerConfig)
        return replace(self, settings=settings)

    def share(self) -> Way:
        """Return the way in which further kernels of this one are run: in one instance, where there are any."""
        if self.name != "container":
            return self
        # A spare that comes up meanwhile would be counted with the others.
        settings = Config({"ApptainerConfig": {"spare_kernels": 0}})
        settings.ApptainerConfig.merge(self.settings.ApptainerConfig)
        return replace(self, kernelspec=SHARED, settings=settings)


@dataclass
class RunningKernel:
    """A kernel that was started, and a client that talks to it."""

    manager: AsyncKernelManager
    client: AsyncKernelClient

    @property
    def provisioner(self) -> ApptainerProvisioner | None:
        """Our provisioner; None where the kernel is not one of ours."""
        provisioner = self.manager.provisioner
        return provisioner if isinstance(provisioner, ApptainerProvisioner) else None

    @property
    def instance(self) -> Instance | None:
        """The instance that the kernel runs in; None where it is not one of ours."""
        kernel = self.provisioner.kernel if self.provisioner else None
        return kernel.instance if kernel else None

    async def end(self) -> None:
        """Shut the kernel down, whatever state it is in, and leave nothing."""
        pid = find_local_pid(self)
        self.client.stop_channels()
        # Killing an `apptainer exec` would leave its helper behind; asked to end, it unmounts.
        await self.manager.shutdown_kernel(now=self.provisioner is not None)
        for stat in iter_stats():
            if pid and stat.session == pid and stat.comm in FUSE_HELPERS:
                ProcessIdentity(stat.pid, stat.start_ticks).send_signal(signal.SIGTERM)


def connect(manager: AsyncKernelManager) -> AsyncKernelClient:
    """Return a client whose channels run. Without heartbeat: its thread would only cost time."""
    client: AsyncKernelClient = manager.client()
    client.start_channels(hb=False)
    return client


async def answer_info(client: AsyncKernelClient) -> float:
    """Ask the kernel who it is and wait for the answer; return the seconds that it took."""
    began = time.monotonic()
    await wait_reply(client, client.kernel_info())
    return time.monotonic() - began


async def wait_reply(client: AsyncKernelClient, msg_id: str) -> dict[str, Any]:
    """Return the reply to a request on the shell channel. Raises queue.Empty after two minutes."""
    while True:
        message: dict[str, Any] = await client.get_shell_msg(timeout=TIMEOUT_S)
        if message["parent_header"].get("msg_id") == msg_id:
            return message


async def launch(manager: AsyncKernelManager, way: Way) -> None:
    """Start the kernel; what its process prints is of no interest."""
    await manager.start_kernel(cwd=str(way.cwd), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def start(way: Way) -> RunningKernel:
    """Start a kernel and wait until it has answered once."""
    manager = way.build_manager()
    await launch(manager, way)
    kernel = RunningKernel(manager, connect(manager))
    try:
        await answer_info(kernel.client)
    except (asyncio.CancelledError, Exception):
        await kernel.end()
        raise
    return kernel


def make_ways(
    folder: Path,
    engine: EngineInfo,
    container: Mapping[str, object],
    image: str,
    local_python: Path,
    bare_python: str | None,
) -> dict[WayName, Way]:
    """Write the kernelspecs below `folder`. container: `config` of a kernel.json of ours; image: its image.

    bare_python: a Python of the image without ipykernel; None: there is no such way.
    """
    cwd = folder / "work"
    cwd.mkdir()
    launch = ["-m", "ipykernel_launcher", "-f", "{connection_file}"]
    pasted = _paste(engine, image)
    provisioner = {"kernel_provisioner": {"provisioner_name": PROVISIONER, "config": dict(container)}}
    settings = Config({"ApptainerConfig": {"engine_path": engine.path}})
    ipython = {"IPYTHONDIR": str(folder / "ipython"), "PYTHONNOUSERSITE": "1"}
    _write_kernelspec(folder, "local", [str(local_python), *launch], env=ipython)
    _write_kernelspec(folder, "container", ["unused"], interrupt_mode="message", metadata=provisioner)
    sharing = {
        "provisioner_name": PROVISIONER,
        "config": {**container, "instance": f"shared:benchmark-{os.getpid()}"},
    }
    _write_kernelspec(folder, SHARED, ["unused"], interrupt_mode="message", metadata={"kernel_provisioner": sharing})
    _write_kernelspec(folder, "recipe", pasted)
    names: list[WayName] = ["local", "container", "recipe"]
    if bare_python:
        bare = {**container, "command": [bare_python, *launch]}
        metadata = {"kernel_provisioner": {"provisioner_name": PROVISIONER, "config": bare}}
        _write_kernelspec(folder, "lent", ["unused"], interrupt_mode="message", metadata=metadata)
        names.append("lent")
    return {name: Way(name, folder / "kernels", cwd, settings) for name in names}


def build_recipe_way(folder: Path, engine: EngineInfo, title: str, image: str) -> Way:
    """Write the kernelspec that people paste: each kernel is an `exec` of its own."""
    _write_kernelspec(folder, title, _paste(engine, image))
    return Way("recipe", folder / "kernels", folder, kernelspec=title)


def _paste(engine: EngineInfo, image: str) -> list[str]:
    words = ["-m", "ipykernel_launcher", "-f", "{connection_file}"]
    return [engine.path, "exec", *run_flags(engine), image, "python3", *words]


def build_local_way(folder: Path, python: Path) -> Way:
    """Write the kernelspec of an ipykernel on the host."""
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    env = {"IPYTHONDIR": str(folder / "ipython"), "PYTHONNOUSERSITE": "1"}
    _write_kernelspec(folder, "local", argv, env=env)
    # The same sockets as a kernel in a container has: their files tell when it listens.
    settings = Config({"KernelManager": {"transport": "ipc", "ip": str(folder / "local-sockets")}})
    return Way("local", folder / "kernels", folder, settings)


def build_way(
    folder: Path, engine: EngineInfo, title: str, container: Mapping[str, object], *, is_forked: bool = True
) -> Way:
    """Write a kernelspec of ours. container: its `config`; is_forked: kernels come from the fork server."""
    name = "".join(char if char.isalnum() else "-" for char in title.lower())
    metadata = {"kernel_provisioner": {"provisioner_name": PROVISIONER, "config": dict(container)}}
    _write_kernelspec(folder, name, ["unused"], interrupt_mode="message", metadata=metadata)
    settings = Config({"ApptainerConfig": {"engine_path": engine.path, "fork_kernels": is_forked}})
    return Way("container", folder / "kernels", folder, settings, kernelspec=name)


def _write_kernelspec(folder: Path, name: str, argv: list[str], **fields: object) -> None:
    target = folder / "kernels" / name
    target.mkdir(parents=True)
    document = {"argv": argv, "display_name": name, "language": "python", **fields}
    (target / "kernel.json").write_text(json.dumps(document))


def find_local_pid(kernel: RunningKernel) -> int:
    """Return the pid of the process that Jupyter started for a kernel; 0 where there is none."""
    process = getattr(kernel.manager.provisioner, "process", None)
    return int(process.pid) if process is not None else 0
