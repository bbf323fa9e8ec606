"""The environment in which the engine itself runs.

Every flag of the engine has an APPTAINER_ twin (APPTAINER_BIND, APPTAINER_NV, …; SINGULARITY_ is read too), so a variable in
somebody's profile would bend our commands. All of them are removed, but for those that only say where things lie.
Values meant for the container travel as APPTAINERENV_NAME: they arrive unchanged, with commas, quotes and newlines, even
with --cleanenv, and are in nobody's process list, as `--env` would be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_PREFIXES = ("APPTAINER", "SINGULARITY")
_KEPT = frozenset(
    {
        "CACHEDIR",
        "CONFIGDIR",
        "TMPDIR",
        "DISABLE_CACHE",
        "DOCKER_USERNAME",
        "DOCKER_PASSWORD",
        "LIBRARY",
        "PULLDIR",
    }
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def build_engine_environment(
    environ: Mapping[str, str], container_env: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment for an engine process.

    environ: the ambient variables.
    container_env: what the program in the container shall see, by name.
    """
    clean = {name: value for name, value in environ.items() if not is_bending(name)}
    # Messages are matched as text, and mkfs, mksquashfs and friends translate theirs.
    clean["LC_ALL"] = "C"
    # Python settings of ours are not for the engine's helpers (a conda build of it ships Python programs).
    for name in ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LD_PRELOAD"):
        clean.pop(name, None)
    for name, value in (container_env or {}).items():
        clean[f"APPTAINERENV_{name}"] = value
    return clean


def is_bending(name: str) -> bool:
    """Say whether a variable would change what an engine command does."""
    for prefix in _PREFIXES:
        if name.startswith(prefix + "ENV_"):
            return True
        if name.startswith(prefix + "_"):
            return name.removeprefix(prefix + "_") not in _KEPT
    return False


def is_variable_name(name: str) -> bool:
    """Say whether `name` can be a variable of a shell; the engine exports them through one."""
    return bool(_VARIABLE.fullmatch(name))
