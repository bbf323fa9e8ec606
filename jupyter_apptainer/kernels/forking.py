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

SERVER = "fork_begin.py"
START_SCRIPT = "start.sh"
# What lies in the folder that the instance binds, beside the shim.
PROGRAM = (
    SERVER,
    "fork_server.py",
    "fork_modules.py",
    "fork_child.py",
    "fork_spares.py",
    "fork_spare.py",
    "module_bundle.py",
    START_SCRIPT,
)
SOCKET = "fork"
BELL = "_bell"
LOG = "fork.log"
BUNDLE = "modules"
# After a start the machine is the user's for so long, before a spare kernel is made.
SETTLE_S = 2.0
# A spare kernel answers at once, unless somebody has stopped it, or its history is locked: sqlite waits as long.
PATIENCE_S = 5.0
# What the engine runs as the main process of an instance.
_PLACE = "/.singularity.d/startscript"
_LAUNCHER = ("-m", "ipykernel_launcher")


@dataclass(frozen=True)
class ForkLimits:
    """What a server may keep. rest_s: when that of a single kernel gives back its memory, 0 for never. spare_kernels, spare_idle_s: how many kernels it has
    ready for the next starts, and how long."""

    rest_s: float = 0.0
    spare_kernels: int = 0
    spare_idle_s: float = 600.0


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
    changed: Sequence[str] | None,
    limits: ForkLimits,
    is_ahead: bool,
) -> ForkPlan | None:
    """Return the plan, or None where the kernel is not an ipykernel that the shim runs.

    bundle: the file of the image's probe. command: the kernel's, with the shim in it. folder: that the instance binds. names: the kernel's variables, where
    other kernels may come with others. is_layered: other
    files than those of the image may be seen in their place. changed: of the folders with what is imported, those where that is so, None where nobody knows.
    is_ahead: nobody has asked for a kernel yet.
    """
    if shim not in command:
        return None
    at = list(command).index(shim)
    start = next((i for i in range(at, len(command)) if command[i : i + 2] == _LAUNCHER), None)
    if start is None:
        return None
    argv = tuple(command[start:])
    # Others will follow where kernels share it, and what was to be preloaded shall stay so.
    is_kept = bool(spec.preload or find_shared_name(spec))
    socket, log = posixpath.join(folder, SOCKET), posixpath.join(folder, LOG)
    settings = {
        "preload": spec.preload,
        "names": None if names is None else sorted(names),
        "rest_s": 0 if is_kept else limits.rest_s,
        "spares": _plan_spares(argv, limits, is_kept=is_kept, is_ahead=is_ahead),
    }
    found = posixpath.join(folder, BUNDLE) if bundle else "-"
    layers = _name_layers(changed) if is_layered else "-"
    own = (posixpath.join(folder, SERVER), found, layers, socket, json.dumps(settings))
    words = (*command[:at], *own, *command[at + 1 :])
    return ForkPlan(
        command=(log, *words),
        socket=socket,
        options=tuple(command[at + 1 : start]),
        argv=argv,
        log=log,
        bundle=bundle,
    )


def _name_layers(changed: Sequence[str] | None) -> str:
    """Return a word of `fork_begin.py`'s."""
    return "?" if changed is None or any(":" in folder for folder in changed) else ":".join(changed)


def _plan_spares(
    argv: tuple[str, ...], limits: ForkLimits, *, is_kept: bool, is_ahead: bool
) -> dict[str, float] | None:
    """Say how many kernels are ready, "before" the first one and "after" it; None: never any. A single kernel gets one for its start, but none for a restart."""
    before, after = min(limits.spare_kernels, int(is_ahead)), limits.spare_kernels if is_kept else 0
    # With other options ipykernel may be told to look at anything while it starts.
    if not (before or after) or argv[:-1] != (*_LAUNCHER, "-f"):
        return None
    return {
        "before": before,
        "after": after,
        "settle_s": SETTLE_S,
        "idle_s": limits.spare_idle_s,
        "patience_s": PATIENCE_S,
    }


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
