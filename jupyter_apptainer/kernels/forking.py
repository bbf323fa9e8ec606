"""Whether and how an instance's main process is a fork server, from which its kernels come. Pure.

Without one, each kernel joins the instance through `exec` and imports everything itself: slower, and otherwise the same.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from ..engine.options import Bind
from ..images.probe import ImageProbe
from .spec import ContainerSpec, find_shared_name

SERVER = "fork_server.py"
START_SCRIPT = "start.sh"
# What lies in the folder that the instance binds, beside the shim.
PROGRAM = (SERVER, "fork_modules.py", "fork_child.py", "module_bundle.py", START_SCRIPT)
SOCKET = "fork"
BELL = "_bell"
LOG = "fork.log"
BUNDLE = "modules"
# What the engine runs as the main process of an instance.
_PLACE = "/.singularity.d/startscript"
_LAUNCHER = ("-m", "ipykernel_launcher")


@dataclass(frozen=True)
class ForkPlan:
    """command: the instance's main process. socket: where it takes requests. options, argv: words of the kernel's own command, for the
    shim and behind them. log: what the server prints. bundle: the host's file with the code of what it imports, or None."""

    command: tuple[str, ...]
    socket: str
    options: tuple[str, ...]
    argv: tuple[str, ...]
    log: str
    bundle: str | None

    @property
    def folder(self) -> str:
        """Where its files lie, seen at the same path by the container."""
        return posixpath.dirname(self.socket)


def plan_fork_server(
    spec: ContainerSpec,
    command: Sequence[str],
    shim: str,
    folder: str,
    names: Sequence[str] | None,
    bundle: str | None,
    is_layered: bool,
    rest_s: float,
) -> ForkPlan | None:
    """Return the plan, or None where the kernel is not an ipykernel that the shim runs.

    bundle: the file of the image's probe. command: the kernel's, with the shim in it. folder: that the instance binds. names: the kernel's variables, where
    other kernels may come with others. is_layered: other
    files than those of the image may be seen in their place. rest_s: when the server of a single kernel gives back its memory, 0 for never.
    """
    if shim not in command:
        return None
    at = list(command).index(shim)
    start = next((i for i in range(at, len(command)) if command[i : i + 2] == _LAUNCHER), None)
    if start is None:
        return None
    socket, log = posixpath.join(folder, SOCKET), posixpath.join(folder, LOG)
    settings = {
        "preload": spec.preload,
        "names": None if names is None else sorted(names),
        "bundle": posixpath.join(folder, BUNDLE) if bundle else None,
        "is_layered": is_layered,
        # Others will follow where kernels share it, and what was to be preloaded shall stay so.
        "rest_s": 0 if spec.preload or find_shared_name(spec) else rest_s,
    }
    words = (*command[:at], posixpath.join(folder, SERVER), socket, json.dumps(settings), *command[at + 1 :])
    return ForkPlan(
        command=(log, *words),
        socket=socket,
        options=tuple(command[at + 1 : start]),
        argv=tuple(command[start:]),
        log=log,
        bundle=bundle,
    )


def build_start_binds(plan: ForkPlan) -> tuple[Bind, ...]:
    """Return the binds that put the server in the main process's place, and show it the bundle."""
    script = posixpath.join(plan.folder, START_SCRIPT)
    binds = [Bind(script, _PLACE, "ro", why="starts the fork server, from which the kernels come")]
    if plan.bundle:
        inside = posixpath.join(plan.folder, BUNDLE)
        binds.append(Bind(plan.bundle, inside, "ro", why="the code of what the fork server imports, in one file"))
    return tuple(binds)


def has_tight_limits(spec: ContainerSpec) -> bool:
    """Say whether what a server needs would be taken from the kernel."""
    return spec.resources.memory_bytes is not None or spec.resources.pids is not None


def find_obstacle(spec: ContainerSpec, probe: ImageProbe | None, *, is_wanted: bool, has_memory: bool) -> str:
    """Say why the kernels cannot come from a fork server here; empty where they can. probe: None where the image was not asked."""
    if not is_wanted:
        return "`ApptainerConfig.fork_kernels` is False"
    if probe is None or not probe.can_fork:
        return "that takes an image with ipykernel on CPython 3.8 or newer and without a start script of its own"
    if has_tight_limits(spec):
        return "there are limits of memory or processes"
    return "" if has_memory else "this machine is short of memory"
