"""Steps of layered builds: programs that run on an overlay of folders, in a mount namespace of their own.

A script of a definition runs by the same command of the engine as in the engine's own build; what that adds is a new layer for
what it changes. The namespace maps the same ids as the engine's `--fakeroot`, so all files have the owners that they would have.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from .command import Command, returns_nothing
from .locate import EngineInfo, load_capabilities
from .packing import build_namespace
from .step import StepError, run_step

# In a user namespace: the overlay's own marks are user attributes. Nothing that a later mount could not read as a lower layer.
_USER_OPTIONS = "userxattr,volatile"
_ROOT_OPTIONS = "redirect_dir=off,index=off,metacopy=off,volatile"
_COPIED = "copied:"
_POST, _METADATA, _APPS = "run a step of %post", "build the last layer", "make the folders of apps"
# What overlayfs leaves can be removed only here, where all ids are mapped.
_TRIAL = """\
mkdir lower upper work root || exit
mount -t overlay overlay -o "lowerdir=lower,upperdir=upper,workdir=work,$1" root && touch root/file && umount root
status=$?
rm -rf lower upper work root
exit $status
"""
# The titles of commands that run programs of a recipe.
SCRIPTED = (_POST, _METADATA, _APPS)


@dataclass(frozen=True)
class Room:
    """Where steps run. store: the folder of all layers. options: those of overlay mounts."""

    store: Path
    wrapper: tuple[str, ...]
    options: str


def find_room(store: Path) -> Room:
    """Return how steps run here. Raises StepError where they cannot: its reason is for people.

    store: a folder that is there. Tried out, for only the kernel knows whether this file system may be part of an overlay.
    """
    namespace = build_namespace()
    if namespace and "--map-auto" not in namespace:
        raise StepError("this user has no range of ids in /etc/subuid and /etc/subgid")
    own = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    wrapper = (*(namespace or ("unshare",)), *own)
    options = _ROOT_OPTIONS if os.geteuid() == 0 and not load_capabilities().missing else _USER_OPTIONS
    trial = store / f".trial-{secrets.token_hex(6)}"
    trial.mkdir()
    try:
        run_step((*wrapper, "sh", "-c", _TRIAL, "sh", options), "mount an overlay", cwd=str(trial))
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    return Room(store, wrapper, options)


def build_step(
    room: Room,
    lower: Sequence[str],
    new: str,
    program: Sequence[str],
    env: Mapping[str, str],
    *,
    title: str,
    cwd: str | None = None,
    is_copied: bool = False,
    source: Sequence[str] = (),
) -> Command[None]:
    """Run a program that finds the whole system in STORE/NEW/root.

    lower: names of folders below the store, the uppermost first. is_copied: in a copy of all that is below, and not in an overlay.
    source: such folders of another system, which the program finds in STORE/NEW/from and cannot change.
    """
    argv = (*_build_call(room, "run", lower, new, _COPIED * is_copied + room.options, source), *program)
    return Command(argv, env, returns_nothing, title, title, timeout_s=None, cwd=cwd)


def build_look(room: Room, program: Sequence[str], env: Mapping[str, str], *, title: str, stdin: str) -> Command[None]:
    """Run a program that sees the owners of all layers as a step does, and changes nothing."""
    return Command((*room.wrapper, *program), env, returns_nothing, title, title, timeout_s=None, stdin=stdin)


def build_post(
    engine: EngineInfo,
    room: Room,
    lower: Sequence[str],
    new: str,
    env: Mapping[str, str],
    binds: Sequence[str] = (),
    *,
    is_copied: bool = False,
) -> Command[None]:
    """Run STORE/NEW/script as a build's %post. lower and is_copied as with `build_step`."""
    flags = ["-s", "--build-config", "exec", "--pwd", "/", "--writable", "--cleanenv"]
    for prefix in ("APPTAINER", "SINGULARITY"):
        flags += ["--env", f"{prefix}_ENVIRONMENT=/.singularity.d/env/91-environment.sh"]
        flags += ["--env", f"{prefix}_LABELS=/.build.labels"]
    for bind in binds:
        flags += ["-B", bind]
    call = _build_call(room, "post", lower, new, _COPIED * is_copied + room.options)
    return Command((*call, engine.path, *flags), env, returns_nothing, _POST, _POST, timeout_s=None)


def build_unpack(
    engine: EngineInfo,
    room: Room,
    new: str,
    definition: str,
    env: Mapping[str, str],
    *,
    cwd: str,
    no_https: bool = False,
) -> Command[None]:
    """Let the engine make the first layer of a definition that has a header alone."""
    flags = ("--sandbox", "--force", *(("--no-https",) if no_https else ()))
    program = (engine.path, "build", *flags, str(room.store / new / "tree"), definition)
    title = "build the first layer"
    argv = (*_build_call(room, "run", (), new, room.options), *program)
    return Command(argv, env, returns_nothing, title, title, timeout_s=None, cwd=cwd)


def build_metadata(
    engine: EngineInfo,
    room: Room,
    lower: Sequence[str],
    new: str,
    definition: str,
    target: str,
    env: Mapping[str, str],
    *,
    cwd: str,
    is_for_apps: bool = False,
) -> Command[None]:
    """Let the engine add what an image says about itself, and run its %test; or the folders of its apps. `target` becomes a SIF without any file.

    definition: its %setup (of apps, %pre) mounts STORE/NEW/root over the engine's own folder. The engine must not clean that up.
    """
    nothing = ("--mksquashfs-args", "-regex -e .*")
    # Forced as a whole build is: labels and help of the recipe win over those of its base.
    program = (engine.path, "build", "--force", "--no-cleanup", *nothing, target, definition)
    return build_step(room, lower, new, program, env, title=_APPS if is_for_apps else _METADATA, cwd=cwd)


def _build_call(
    room: Room, action: str, lower: Sequence[str], new: str, options: str, source: Sequence[str] = ()
) -> tuple[str, ...]:
    script = str(files(__package__).joinpath("data/layer.sh"))
    return (*room.wrapper, "sh", script, action, str(room.store), ":".join(lower), new, options, ":".join(source))
