"""From wish to plan: everything that a start will do, computed before anything is done.

`build_launch_plan` is a pure function; what it needs to know of the machine comes in as `LaunchContext`.
`jupyter apptainer kernel explain` prints the result.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ..bridge.model import CLIENT, CLIENT_SOURCE, SOCKET, VARIABLE
from ..engine.command import Command
from ..engine.host.gpu import NO_NVIDIA, Nvidia
from ..engine.locate import EngineInfo
from ..engine.options import Bind, ContainerOptions, build_exec, build_instance_start
from ..errors import SpecError
from ..images.probe import LENT_DIR, count_interpreter_words, is_python_command
from .environment import EnvEntry, plan_environment
from .forking import ForkLimits, ForkPlan, build_start_binds, plan_fork_server
from .gpu import GpuPlan, plan_gpu
from .resources import NO_LIMITS, UNKNOWN_HOST, Host, ResourcePlan, plan_resources
from .spec import Bridge, ContainerSpec, OverlayWish, build_wish, find_shared_name

SHIM = "shim.py"
SESSION_SCRIPT = "session.sh"
CONNECTION_FILE = "connection.json"
KERNEL_LOG = "kernel.log"
INSTANCE_LOG = "instance.log"
# Folders of the container that are ours on the host, so that nothing is shared with other kernels and users.
_TEMPORARY = ("/tmp", "/var/tmp")
# The engine splits `--overlay` and `--home` at these.
_ODD = re.compile(r'[,:"]')


@dataclass(frozen=True)
class PlannedFile:
    """What must exist on the host before the start.

    kind "folder": a folder; "link": a link to `target`; "mountpoint": a folder or an empty file, as `target` is one or the other.
    """

    kind: Literal["folder", "link", "mountpoint"]
    path: str
    why: str
    target: str = ""


@dataclass(frozen=True)
class LaunchPlan:
    """A start, computed. Printable; nothing in it refers to a running thing.

    instance_argv / kernel_argv: the exact engine command lines; env: what the kernel sees; files: made before the start.
    private_dir (sockets, connection file, log) and scratch_dir (the kernel's /tmp) are removed after the end.
    resources: limits, and the way in which each will hold. gpu: what was looked for and found.
    fork_server: the instance's main process, from which kernels come; None where each joins through `exec`.
    entry_name: of the ledger; is_shared: other kernels run in the instance too; instance_dir: the folder that it binds, private_dir or above it; wish: what the
    others must have asked for as well.
    unpacked: the image's unpacked copy, which the engine starts instead of it; unpacked_note: why, or why not.
    """

    engine: EngineInfo
    kernel_id: str
    instance_name: str
    image: str
    options: ContainerOptions
    env: tuple[EnvEntry, ...]
    kernel_command: tuple[str, ...]
    cwd: str
    private_dir: str
    scratch_dir: str
    connection_file: str
    files: tuple[PlannedFile, ...]
    warnings: tuple[str, ...]
    instance_argv: tuple[str, ...]
    kernel_argv: tuple[str, ...]
    resources: ResourcePlan
    gpu: GpuPlan
    entry_name: str
    instance_dir: str
    is_shared: bool
    persist: bool | int
    fork_server: ForkPlan | None
    wish: Mapping[str, str]
    bridge: Bridge
    unpacked: str | None
    unpacked_note: str

    @property
    def binds(self) -> tuple[Bind, ...]:
        """The host paths that the kernel sees, in mount order."""
        return self.options.binds

    @property
    def container_env(self) -> dict[str, str]:
        """The kernel's variables by name."""
        return {entry.name: entry.value for entry in self.env}


@dataclass(frozen=True, kw_only=True)
class LaunchContext:
    """What the plan has to know of this machine and of the request.

    cwd: the notebook's folder. home: HOME of the user; engine_home: the home in passwd(5), which the engine mounts by itself. environ: the server's variables and the request's. kernelspec_env: `env` at the
    top of kernel.json. nvidia: what was found of a GPU. host: what limits can build on. extra_arguments: appended to the kernel's command.
    private_dir, scratch_dir: will be made for this kernel; instance_dir, entry_name: where kernels share an instance, the folder above private_dir, and the
    name of this one in the ledger. lent: a folder with an ipykernel for an image that has none.
    fork_obstacle: why kernels cannot be forked; empty where they can. fork_limits: what the server that forks them may keep.
    bundle: the code of what a start imports. is_sandbox: the image is a
    folder, and may change.
    is_ahead: the instance is started before it is known for which kernel.
    engine_config: the engine's configuration, None for its own.
    changed: folders of the image's ipykernel in which the overlay has something, None where nobody knows.
    unpacked: an unpacked copy of the image to start from; unpacked_note: why, or why not.
    fakeroot: the writable overlay needs it. ipython_dir, matplotlib_dir: shared by the user's container kernels.
    """

    engine: EngineInfo
    kernel_id: str
    instance_name: str
    cwd: str
    home: str
    engine_home: str
    private_dir: str
    scratch_dir: str
    ipython_dir: str
    matplotlib_dir: str
    environ: Mapping[str, str]
    kernelspec_env: Mapping[str, str] = field(default_factory=dict)
    lent: str | None = None
    nvidia: Nvidia = NO_NVIDIA
    host: Host = UNKNOWN_HOST
    fakeroot: bool = False
    fork_obstacle: str = "nobody has looked whether they can be"
    fork_limits: ForkLimits = field(default_factory=ForkLimits)
    bundle: str | None = None
    is_sandbox: bool = False
    is_ahead: bool = False
    extra_arguments: tuple[str, ...] = ()
    entry_name: str = ""
    instance_dir: str = ""
    engine_config: str | None = None
    changed: tuple[str, ...] | None = None
    unpacked: str | None = None
    unpacked_note: str = ""


def build_launch_plan(spec: ContainerSpec, context: LaunchContext) -> LaunchPlan:
    """Compute the start of one kernel. Pure. Paths in `spec` are absolute already (`resolve_paths`).

    Raises SpecError where two wishes exclude each other.
    """
    files: list[PlannedFile] = []
    warnings: list[str] = []
    gpu = plan_gpu(spec.nv, context.nvidia)
    resources = plan_resources(spec.resources, context.host, context.instance_name)
    warnings += [gpu.problem] if gpu.problem else []
    options = _plan_options(spec, context, files, gpu, resources)
    command = _plan_command(spec, context)
    env = _plan_env(spec, context)
    fork_server = _plan_fork_server(spec, context, command, env)
    if fork_server is None and spec.preload:
        reason = context.fork_obstacle or "the command is not `python -m ipykernel_launcher`"
        warnings.append(f"preload: no module is loaded ahead: {reason}")
    root = context.unpacked or spec.image
    start = build_start(context.engine, root, context.instance_name, options, fork_server, {})
    run = build_exec(
        context.engine, f"instance://{context.instance_name}", command, {}, options=options, cwd=context.cwd
    )
    return LaunchPlan(
        engine=context.engine,
        kernel_id=context.kernel_id,
        instance_name=context.instance_name,
        image=spec.image,
        options=options,
        env=env,
        kernel_command=command,
        cwd=context.cwd,
        private_dir=context.private_dir,
        scratch_dir=context.scratch_dir,
        connection_file=posixpath.join(context.private_dir, CONNECTION_FILE),
        files=tuple(files),
        warnings=tuple(warnings),
        instance_argv=start.argv,
        kernel_argv=run.argv,
        resources=resources,
        gpu=gpu,
        entry_name=context.entry_name or context.instance_name,
        instance_dir=context.instance_dir or context.private_dir,
        is_shared=bool(find_shared_name(spec)),
        persist=spec.persist,
        fork_server=fork_server,
        wish=build_wish(spec),
        bridge=spec.bridge,
        unpacked=context.unpacked,
        unpacked_note=context.unpacked_note,
    )


def build_start(
    engine: EngineInfo,
    image: str,
    name: str,
    options: ContainerOptions,
    fork_server: ForkPlan | None,
    env: Mapping[str, str],
) -> Command[None]:
    """`instance start`, with the fork server where there is one."""
    if fork_server is None:
        return build_instance_start(engine, image, name, options, env)
    options = replace(options, binds=(*options.binds, *build_start_binds(fork_server)))
    return build_instance_start(engine, image, name, options, env, fork_server.command)


def _plan_fork_server(
    spec: ContainerSpec, context: LaunchContext, command: tuple[str, ...], env: Sequence[EnvEntry]
) -> ForkPlan | None:
    if context.fork_obstacle:
        return None
    shim = posixpath.join(context.private_dir, SHIM)
    folder = context.instance_dir or context.private_dir
    is_layered = bool(spec.overlays or spec.binds or spec.extra_flags) or context.is_sandbox
    names = [entry.name for entry in env] if find_shared_name(spec) or context.is_ahead else None
    return plan_fork_server(
        spec,
        command,
        shim,
        folder,
        names,
        context.bundle,
        is_layered,
        context.changed,
        context.fork_limits,
        context.is_ahead,
    )


def _plan_options(
    spec: ContainerSpec, context: LaunchContext, files: list[PlannedFile], gpu: GpuPlan, resources: ResourcePlan
) -> ContainerOptions:
    overlays, needs_tmpfs = _plan_overlays(spec.overlays, context, files)
    limits = resources if resources.is_cgroup_used else NO_LIMITS
    home = _plan_home(spec, context, files)
    return ContainerOptions(
        binds=_plan_binds(spec, context, files),
        overlays=overlays,
        nv=gpu.nv,
        rocm=spec.rocm,
        writable_tmpfs=needs_tmpfs,
        fakeroot=context.fakeroot and not {"--fakeroot", "-f"} & set(spec.extra_flags),
        home=home,
        isolation=spec.isolation,
        network=spec.network,
        memory_bytes=limits.memory_bytes,
        cpus=limits.cpus,
        pids=limits.pids,
        extra=spec.extra_flags,
        config_file=context.engine_config,
    )


def _plan_overlays(
    wishes: tuple[OverlayWish, ...], context: LaunchContext, files: list[PlannedFile]
) -> tuple[tuple[str, ...], bool]:
    writable = [wish for wish in wishes if wish.kind == "file" and not wish.is_read_only]
    has_tmpfs = any(wish.kind == "tmpfs" for wish in wishes)
    if len(writable) + has_tmpfs > 1:
        raise SpecError(
            "overlays: only one layer can be writable, and "
            + ", ".join([w.path for w in writable] + (["tmpfs"] if has_tmpfs else []))
            + " all are",
            hint="add `:ro` to all but one",
        )
    flags: list[str] = []
    for number, wish in enumerate(wish for wish in wishes if wish.kind == "file"):
        path = _plain_path(wish.path, f"overlay{number}", context, files)
        flags.append(f"{path}:ro" if wish.is_read_only else path)
    # A read-only ext3 layer alone is mounted by the kernel's overlayfs, which does not know fuse-overlayfs' way to record
    # deletions: deleted files would come back. A writable layer in memory on top makes the engine use fuse-overlayfs.
    return tuple(flags), has_tmpfs or (bool(flags) and not writable)


def _plan_home(spec: ContainerSpec, context: LaunchContext, files: list[PlannedFile]) -> str | None:
    if spec.home not in ("host", "none"):
        return f"{_plain_path(spec.home, 'home', context, files)}:{context.home}"
    if spec.home == "none" or spec.isolation != "default":
        own = posixpath.join(context.scratch_dir, "home")
        files.append(PlannedFile("folder", own, "an empty home folder that goes with the kernel"))
        return f"{own}:{context.home}"
    # Root's home folder in a container of --fakeroot is /root, wherever the user's is.
    if context.home != context.engine_home or context.fakeroot:
        return f"{_plain_path(context.home, 'home', context, files)}:{context.home}"
    return None


def _plan_binds(spec: ContainerSpec, context: LaunchContext, files: list[PlannedFile]) -> tuple[Bind, ...]:
    binds: list[Bind] = []
    for folder in _TEMPORARY:
        own = posixpath.join(context.scratch_dir, folder.strip("/").replace("/", "-"))
        files.append(PlannedFile("folder", own, f"{folder} of the container"))
        binds.append(Bind(own, folder, why="private, on disk: the host's is shared by all users, and pids repeat"))
    instance_dir = context.instance_dir or context.private_dir
    own_binds = [Bind(instance_dir, instance_dir, why="sockets, connection file and log of each kernel in it")]
    if spec.home == "host" and spec.isolation == "default" and _is_below(context.home, _TEMPORARY):
        own_binds.append(Bind(context.home, context.home, why="your home, which the private /tmp would hide"))
    if spec.bridge != "off" and is_python_command(spec.command):
        own_binds.append(_bind_client(context, files))
    if context.cwd != "/" and not any(wish.destination == context.cwd for wish in spec.binds):
        own_binds.append(Bind(context.cwd, context.cwd, why="the notebook's folder, at its own path"))
    if spec.home == "host" and spec.isolation == "default":
        for folder in (context.ipython_dir, context.matplotlib_dir):
            files.append(PlannedFile("folder", folder, "IPYTHONDIR and MPLCONFIGDIR of container kernels"))
            if not _is_below(folder, (context.home,)):
                own_binds.append(Bind(folder, folder, why="IPYTHONDIR and MPLCONFIGDIR of container kernels"))
    if context.lent:
        own_binds.append(Bind(context.lent, LENT_DIR, "ro", why="an ipykernel, for the image has none"))
    for wish in spec.binds:
        own_binds.append(Bind(wish.source, wish.destination or wish.source, wish.mode, why="`binds` of the config"))
    for bind in own_binds:
        binds.append(bind)
        _plan_mountpoint(bind, context, files)
    return tuple(binds)


def _bind_client(context: LaunchContext, files: list[PlannedFile]) -> Bind:
    path = posixpath.join(context.instance_dir or context.private_dir, CLIENT)
    files.append(
        PlannedFile("mountpoint", path, "where the bridge's side of the container is mounted", target=CLIENT_SOURCE)
    )
    return Bind(CLIENT_SOURCE, path, "ro", why="what `%load_ext jupyter_apptainer` loads in the container")


def _plan_mountpoint(bind: Bind, context: LaunchContext, files: list[PlannedFile]) -> None:
    """A path below /tmp is mounted inside our own /tmp, so it has to exist there."""
    for folder in _TEMPORARY:
        if _is_below(bind.destination, (folder,)):
            own = posixpath.join(context.scratch_dir, folder.strip("/").replace("/", "-"))
            path = posixpath.join(own, posixpath.relpath(bind.destination, folder))
            files.append(PlannedFile("mountpoint", path, f"where {bind.destination} is mounted", target=bind.source))


def _plan_env(spec: ContainerSpec, context: LaunchContext) -> tuple[EnvEntry, ...]:
    own = [
        EnvEntry(
            "JPY_PARENT_PID", "0", "the server is in another PID namespace: the kernel would think it gone and exit"
        ),
        EnvEntry("PYTHONNOUSERSITE", "1", "packages in ~/.local belong to the host's Python"),
    ]
    if context.unpacked:
        own += _name_image(spec.image, context.engine)
    if spec.bridge != "off":
        socket = posixpath.join(context.private_dir, SOCKET)
        own.append(EnvEntry(VARIABLE, socket, "where this kernel's bridge to the host is"))
    if spec.home == "host" and spec.isolation == "default":
        own += [
            EnvEntry("IPYTHONDIR", context.ipython_dir, "history and start-up files apart from the host's"),
            EnvEntry("MPLCONFIGDIR", context.matplotlib_dir, "font cache apart from the host's"),
        ]
    return plan_environment(
        host=context.environ,
        kernelspec_env=context.kernelspec_env,
        spec_env=spec.env,
        inherit=spec.inherit_env,
        own=own,
    )


def _name_image(image: str, engine: EngineInfo) -> list[EnvEntry]:
    """The engine would name the copy that it starts."""
    prefixes = ("APPTAINER", "SINGULARITY") if engine.flavour == "apptainer" else ("SINGULARITY",)
    values = {"CONTAINER": image, "NAME": os.path.basename(image)}
    why = "the image, and not its unpacked copy"
    return [EnvEntry(f"{prefix}_{name}", value, why) for prefix in prefixes for name, value in values.items()]


def _plan_command(spec: ContainerSpec, context: LaunchContext) -> tuple[str, ...]:
    connection = posixpath.join(context.private_dir, CONNECTION_FILE)
    words = [word.replace("{connection_file}", connection) for word in spec.command]
    words += context.extra_arguments
    at = find_shim_position(words)
    if at is None:
        return ("/bin/sh", posixpath.join(context.private_dir, SESSION_SCRIPT), *words)
    lent = ("--lent", LENT_DIR) if context.lent else ()
    client = posixpath.join(context.instance_dir or context.private_dir, CLIENT)
    bridge = ("--bridge", client) if spec.bridge != "off" else ()
    # What is installed into an overlay file while the kernel runs is otherwise found late.
    late = ["--overlay"] if any(w.kind == "file" and not w.is_read_only for w in spec.overlays) else []
    return (*words[:at], posixpath.join(context.private_dir, SHIM), *late, *bridge, *lent, *words[at:])


def find_shim_position(command: Sequence[str]) -> int | None:
    """Return where in a Python's command line the shim goes; None where the session script has to serve."""
    if not is_python_command(command):
        return None
    at = count_interpreter_words(command)
    # Not before `-c` or a glued `-Im`.
    if at < len(command) and (command[at] == "-m" or not command[at].startswith("-")):
        return at
    return None


def _plain_path(path: str, label: str, context: LaunchContext, files: list[PlannedFile]) -> str:
    """Return a path that the engine's flag can hold: where it would be split, a link to it in our own folder."""
    if not _ODD.search(path):
        return path
    folder = context.instance_dir or context.private_dir
    link = posixpath.join(folder, f"{label}{os.path.splitext(path)[1]}")
    if _ODD.search(link):
        link = posixpath.join(folder, label)
    files.append(PlannedFile("link", link, "the engine would split the path", target=path))
    return link


def _is_below(path: str, folders: tuple[str, ...]) -> bool:
    return any(path.startswith(folder + "/") for folder in folders)
