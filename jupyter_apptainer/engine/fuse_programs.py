"""Has the engine start squashfuse, which mounts the image, so that it takes less memory.

It unpacks in many threads, for each of which the C library would keep memory that is free: 5 MB for good after much was read.
The engine has no flag for it, so it is given a configuration with a program of ours in front of its own.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from ..places import Places, make_private_dir, write_private_file
from .companions import find_companion
from .locate import EngineInfo

# What each is started by, a script without its first line.
SCRIPTS: Mapping[str, str] = {
    "squashfuse_ll": 'export MALLOC_ARENA_MAX=1\nexec {program} "$@"',
}
CONFIG_VARIABLE = "APPTAINER_CONFIG_FILE"
# As the engine has it where nothing is configured; its own helpers are found with $PATH.
_DEFAULT_SEARCH = "$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SETTING = re.compile(r"^[ \t]*binary path[ \t]*=[ \t]*(.*?)[ \t]*$", re.MULTILINE)


def find_config(engine: EngineInfo, places: Places, *, is_dry: bool = False) -> str | None:
    """Return a configuration for the engine, made where it is not there yet; None where the engine's own has to serve.

    A setuid installation takes none but root's. is_dry: nothing is written.
    """
    if engine.flavour != "apptainer" or engine.setuid:
        return None
    found = {name: find_companion(engine, name) for name in SCRIPTS}
    scripts = {name: SCRIPTS[name].format(program=shlex.quote(path)) for name, path in found.items() if path}
    if not scripts:
        return None
    try:
        own = Path(engine.config_file).read_text(encoding="utf-8")
        return _keep(scripts, own, places.cache / "fuse", is_dry=is_dry)
    except (OSError, ValueError):
        # Not to be read, or nowhere to write: then it takes more.
        return None


def _keep(scripts: Mapping[str, str], own: str, folder: Path, *, is_dry: bool) -> str | None:
    folder = folder / hashlib.sha256("\n".join((*scripts.values(), own)).encode()).hexdigest()[:16]
    config = folder / "apptainer.conf"
    text = add_search_folder(own, str(folder))
    if text is None:
        return None
    if not config.exists():
        if is_dry:
            return None
        make_private_dir(folder)
        for name, script in scripts.items():
            write_private_file(folder / name, f"#!/bin/sh\n{script}\n").chmod(0o700)
        write_private_file(config, text)
    # Not where programs cannot be run (a home that is mounted so): the engine would pass it by.
    return str(config) if all(os.access(folder / name, os.X_OK) for name in scripts) else None


def add_search_folder(config: str, folder: str) -> str | None:
    """Return an apptainer.conf by which helpers are looked for in `folder` first; None where that cannot be written."""
    settings = _SETTING.findall(config)
    search = settings[-1] if settings else _DEFAULT_SEARCH
    if "$PATH:" not in search or any(char in folder for char in ":$\n"):
        return None
    return _SETTING.sub("", config) + f"\nbinary path = {folder}:{search}\n"
