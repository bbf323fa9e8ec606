"""Has the engine start fuse-overlayfs, which merges image and overlay, so that it does not count the folders in each folder.

For the number of links of a folder it would look at every file in it, and for that at every file in its folders: a start of Python lists
two large folders, which takes 0.3 s then. With `static_nlink` the number is 1, which stands for "not counted".
The engine has no flag for it, so it is given a configuration with a program of ours in front of its own.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from pathlib import Path

from ..places import Places, make_private_dir, write_private_file
from .companions import find_companion
from .locate import EngineInfo

PROGRAM = "fuse-overlayfs"
CONFIG_VARIABLE = "APPTAINER_CONFIG_FILE"
# As the engine has it where nothing is configured; its own helpers are found with $PATH.
_DEFAULT_SEARCH = "$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SETTING = re.compile(r"^[ \t]*binary path[ \t]*=[ \t]*(.*?)[ \t]*$", re.MULTILINE)


def find_quick_config(engine: EngineInfo, places: Places, *, is_dry: bool = False) -> str | None:
    """Return a configuration for the engine, made where it is not there yet; None where the engine's own has to serve.

    A setuid installation takes none but root's. is_dry: nothing is written.
    """
    if engine.flavour != "apptainer" or engine.setuid:
        return None
    program = find_companion(engine, PROGRAM)
    if program is None:
        return None
    try:
        own = Path(engine.config_file).read_text(encoding="utf-8")
        return _keep(program, own, places.cache / "overlayfs", is_dry=is_dry)
    except (OSError, ValueError):
        # Not to be read, or nowhere to write: then it takes longer.
        return None


def _keep(program: str, own: str, folder: Path, *, is_dry: bool) -> str | None:
    folder = folder / hashlib.sha256(f"{program}\n{own}".encode()).hexdigest()[:16]
    config, wrapper = folder / "apptainer.conf", folder / PROGRAM
    text = add_search_folder(own, str(folder))
    if text is None:
        return None
    if not config.exists():
        if is_dry:
            return None
        make_private_dir(folder)
        write_private_file(wrapper, f'#!/bin/sh\nexec {shlex.quote(program)} -o static_nlink "$@"\n').chmod(0o700)
        write_private_file(config, text)
    # Not where programs cannot be run (a home that is mounted so): the engine would pass it by.
    return str(config) if os.access(wrapper, os.X_OK) else None


def add_search_folder(config: str, folder: str) -> str | None:
    """Return an apptainer.conf by which helpers are looked for in `folder` first; None where that cannot be written."""
    settings = _SETTING.findall(config)
    search = settings[-1] if settings else _DEFAULT_SEARCH
    if "$PATH:" not in search or any(char in folder for char in ":$\n"):
        return None
    return _SETTING.sub("", config) + f"\nbinary path = {folder}:{search}\n"
