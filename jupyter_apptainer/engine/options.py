"""Engine command lines as values: one builder for each command that we use, all pure.

`ContainerOptions` holds what `exec`, `run` and `instance start` have in common.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..errors import EngineOutputError, SpecError
from .command import Command, Completed, returns_nothing
from .fuse_programs import CONFIG_VARIABLE
from .locate import EngineInfo, build_flags, build_wrapper, run_flags

BindMode = Literal["rw", "ro"]


@dataclass(frozen=True)
class Bind:
    """A host path made visible in the container. `why` is shown by `explain`."""

    source: str
    destination: str
    mode: BindMode = "rw"
    why: str = field(default="", compare=False)


@dataclass(frozen=True)
class ContainerOptions:
    """Flags shared by `exec`, `run` and `instance start`.

    overlays: as the engine takes them, `FILE` or `FILE:ro`. home: None for the engine's default, "none", or `SRC:DEST`.
    isolation: "default", "contain" or "containall". network: "host" or "none". extra: further flags, as typed.
    memory_bytes, cpus, pids: limits of a cgroup, which not every host lets the engine make. config_file: what `instance start` takes for
    apptainer.conf, None for the engine's own.
    """

    binds: tuple[Bind, ...] = ()
    overlays: tuple[str, ...] = ()
    nv: bool = False
    rocm: bool = False
    writable_tmpfs: bool = False
    fakeroot: bool = False
    clean_env: bool = True
    home: str | None = None
    isolation: Literal["default", "contain", "containall"] = "default"
    network: Literal["host", "none"] = "host"
    workdir: str | None = None
    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None
    extra: tuple[str, ...] = ()
    # It changes nothing that a container has, and so is no part of what is known of an image.
    config_file: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class InstanceRow:
    """One row of `instance list --json`. pid is that of the init process, on the host."""

    name: str
    pid: int
    image: str
    log_err_path: str
    log_out_path: str


def build_bind_flags(bind: Bind) -> tuple[str, ...]:
    """Return the flags for one bind. `--mount` takes CSV, so commas, colons, quotes and spaces can be in a path."""
    fields = ["type=bind", f"source={bind.source}", f"destination={bind.destination}"]
    if any("\n" in word for word in fields):
        raise SpecError(f"bind {bind.source!r}: a path with a line break cannot be bound")
    if bind.mode == "ro":
        fields.append("ro")
    return ("--mount", ",".join(_quote_csv(word) for word in fields))


def _quote_csv(word: str) -> str:
    if not any(char in word for char in ',"'):
        return word
    return '"' + word.replace('"', '""') + '"'


def build_container_flags(engine: EngineInfo, options: ContainerOptions) -> tuple[str, ...]:
    """Return the flags of `options` for this engine, those first that the host makes necessary."""
    flags = list(run_flags(engine))
    if options.fakeroot:
        flags.append("--fakeroot")
    if engine.has_no_eval:
        flags.append("--no-eval")
    if options.clean_env:
        flags.append("--cleanenv")
    if options.isolation != "default":
        flags.append("--" + options.isolation)
    if options.workdir:
        flags += ["--workdir", options.workdir]
    if options.home == "none":
        flags.append("--no-home")
    elif options.home:
        flags += ["--home", options.home]
    if options.network == "none":
        flags += ["--net", "--network", "none"]
    flags += ["--nv"] if options.nv else []
    flags += ["--rocm"] if options.rocm else []
    flags += ["--writable-tmpfs"] if options.writable_tmpfs else []
    limits = (("--memory", options.memory_bytes), ("--cpus", options.cpus), ("--pids-limit", options.pids))
    for flag, limit in limits:
        flags += [flag, str(limit)] if limit is not None else []
    for overlay in options.overlays:
        flags += ["--overlay", overlay]
    for bind in options.binds:
        flags += build_bind_flags(bind)
    return tuple(flags) + options.extra


def build_instance_start(
    engine: EngineInfo,
    image: str,
    name: str,
    options: ContainerOptions,
    env: Mapping[str, str],
    arguments: Sequence[str] = (),
) -> Command[None]:
    """`instance start`. `env` comes from `build_engine_environment`."""
    argv = (engine.path, "instance", "start", *build_container_flags(engine, options), image, name, *arguments)
    if options.config_file:
        env = {**env, CONFIG_VARIABLE: options.config_file}
    # The engine mounts the folder that it is started in: whatever the server's happens to be is nothing for the container.
    return Command(argv, env, returns_nothing, f"start instance {name}", image, timeout_s=120, cwd="/")


def build_exec(
    engine: EngineInfo,
    target: str,
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    options: ContainerOptions | None = None,
    cwd: str | None = None,
    timeout_s: float | None = None,
) -> Command[Completed]:
    """`exec` in an image, or in a running instance (`instance://NAME`), where container options are ignored by the engine."""
    return Command(
        (engine.path, "-q", "exec", *_build_target_flags(engine, target, options, cwd), target, *argv),
        env,
        lambda completed: completed,
        f"run {argv[0]} in {target}",
        target,
        timeout_s=timeout_s,
    )


def build_shell(
    engine: EngineInfo, target: str, *, options: ContainerOptions | None = None, cwd: str | None = None
) -> tuple[str, ...]:
    """Return the words of `shell` in an image or instance: for a terminal, where a person reads and ends it."""
    return (engine.path, "-q", "shell", *_build_target_flags(engine, target, options, cwd), target)


def _build_target_flags(
    engine: EngineInfo, target: str, options: ContainerOptions | None, cwd: str | None
) -> tuple[str, ...]:
    if target.startswith("instance://"):
        flags: tuple[str, ...] = run_flags(engine)
        flags += ("--no-eval",) if engine.has_no_eval else ()
        flags += ("--cleanenv",) if options is None or options.clean_env else ()
    else:
        flags = build_container_flags(engine, options or ContainerOptions())
    return flags + (("--pwd", cwd) if cwd else ())


def build_instance_list(engine: EngineInfo, env: Mapping[str, str]) -> Command[tuple[InstanceRow, ...]]:
    """`instance list --json`: every instance of this user on this host, ours or not."""
    return Command(
        (engine.path, "instance", "list", "--json"), env, parse_instance_list, "list the instances", timeout_s=30
    )


def parse_instance_list(completed: Completed) -> tuple[InstanceRow, ...]:
    """Parse `instance list --json`. Raises EngineOutputError for anything unexpected."""
    try:
        rows = json.loads(completed.stdout)["instances"] or []
        return tuple(
            InstanceRow(
                name=row["instance"],
                pid=int(row["pid"]),
                image=row["img"],
                log_err_path=row["logErrPath"],
                log_out_path=row["logOutPath"],
            )
            for row in rows
        )
    except (ValueError, KeyError, TypeError) as error:
        raise EngineOutputError(f"unexpected answer of instance list: {error}") from error


def build_instance_stop(engine: EngineInfo, name: str, env: Mapping[str, str], *, timeout_s: int = 10) -> Command[None]:
    """`instance stop`: only the fallback; `instances.stop` ends an instance in milliseconds without it."""
    argv = (engine.path, "instance", "stop", "--timeout", str(timeout_s), name)
    return Command(argv, env, returns_nothing, f"stop instance {name}", name, timeout_s=timeout_s + 10)


def build_overlay_create(engine: EngineInfo, path: str, size_mib: int, env: Mapping[str, str]) -> Command[None]:
    """`overlay create`: an ext3 image that takes only the space it uses."""
    argv = (engine.path, "overlay", "create", "--sparse", "--size", str(size_mib), path)
    return Command(argv, env, returns_nothing, f"create the overlay {path}", path, timeout_s=120)


def build_image_build(
    engine: EngineInfo,
    target: str,
    source: str,
    env: Mapping[str, str],
    *,
    build_args: Mapping[str, str] | None = None,
    mksquashfs_args: str | None = None,
    binds: Sequence[str] = (),
    is_sandbox: bool = False,
    is_forced: bool = False,
    no_https: bool = False,
) -> Command[None]:
    """`build` from a definition file, an image or a URI to a SIF or a sandbox folder."""
    flags = list(build_flags(engine))
    flags += ["--sandbox"] if is_sandbox else []
    flags += ["--force"] if is_forced else []
    flags += ["--no-https"] if no_https else []
    for bind in binds:
        flags += ["--bind", bind]
    for name, value in (build_args or {}).items():
        flags += ["--build-arg", f"{name}={value}"]
    if mksquashfs_args and engine.flavour == "apptainer":
        flags += ["--mksquashfs-args", mksquashfs_args]
    argv = (*build_wrapper(), engine.path, "build", *flags, target, source)
    return Command(argv, env, returns_nothing, f"build {target}", source, timeout_s=None)
