"""From a folder that a build has left to the parts of an image: its file system, and what the engine says about it.

The engine's own `build` of a folder would copy all of it first, and write the time of the day into the copy.
"""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Mapping, Sequence

from ..errors import EngineOutputError
from .command import Command, Completed, returns_nothing
from .companions import get_companion
from .locate import EngineInfo, has_subordinate_ids, load_capabilities
from .step import find_program


def build_pack(
    engine: EngineInfo, folder: str, target: str, env: Mapping[str, str], *, offset: int, arguments: Sequence[str]
) -> Command[None]:
    """Write the folder as a squashfs into `target`, behind `offset` bytes that are left free for a header."""
    program = get_companion(engine, "mksquashfs", f"pack {target}")
    flags = ("-noappend", "-quiet", "-offset", str(offset))
    argv = (*build_namespace(), program, folder, target, *flags, *arguments)
    return Command(argv, env, returns_nothing, f"pack {target}", folder, timeout_s=None)


def build_namespace() -> tuple[str, ...]:
    """What makes a program see the owners of files as the engine's build has seen them; nothing for a complete root."""
    if os.geteuid() == 0 and not load_capabilities().missing:
        return ()
    has_ids = has_subordinate_ids(_find_user_name(), os.geteuid()) and find_program("newuidmap")
    return ("unshare", "--map-root-user", *(("--map-auto",) if has_ids else ()))


def build_describe(engine: EngineInfo, folder: str, env: Mapping[str, str]) -> Command[str]:
    """`inspect --all` of a folder: the text that the engine keeps in a SIF, for its `inspect` of that."""
    argv = (engine.path, "inspect", "--all", "--json", folder)
    return Command(argv, env, _compact, f"inspect {folder}", folder, timeout_s=60)


def _compact(completed: Completed) -> str:
    try:
        document = json.loads(completed.stdout)
    except ValueError as error:
        raise EngineOutputError(f"unexpected answer of inspect: {error}") from error
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def _find_user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
