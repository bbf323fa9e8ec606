"""Why a path is not found in the container although the host has it, and what to do. Nothing is opened, only looked for.

Answered only where the kernel could be given the path: where every policy lets a kernel bind it, and not in the home folder of a kernel
that was not meant to see it. Names that begin with a dot are never told of.
"""

from __future__ import annotations

import os
import posixpath

from ..errors import PolicyError
from ..policy import find_user, load_policies
from ..rules import match_path
from .model import BridgeSetup

# Each system has its own; that the host's are not the image's needs no explanation.
_SYSTEM = (
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
)


def explain_missing(path: str, cwd: str, setup: BridgeSetup) -> str | None:
    """Return a hint about a path that the container does not have; None where there is nothing to tell."""
    absolute = posixpath.normpath(posixpath.join(cwd, path))
    if "\0" in absolute or setup.paths.find_host(absolute) is not None:
        # The container sees that place: the file is not there, or the link leads away, which is the container's to see.
        return None
    if not may_tell(absolute, setup):
        return None
    folder = absolute if os.path.isdir(absolute) else os.path.dirname(absolute)
    kernel = setup.kernelspec or "NAME"
    return (
        f"{absolute} is on the host, but this container does not see it. Bind it, in a terminal of the host: "
        f"`jupyter apptainer kernel edit {kernel} --bind {folder}`, then shut the kernel down and start it again"
    )


def may_tell(path: str, setup: BridgeSetup) -> bool:
    """Say whether the path exists, and the kernel may know. Links are followed: what is judged is what would be bound."""
    real = os.path.realpath(path)
    parts = [*path.split("/"), *real.split("/")]
    if any(part.startswith(".") for part in parts) or real == "/":
        return False
    user, home = find_user()
    is_system = any(match_path(real, folder, home=home, user=user) for folder in _SYSTEM)
    is_in_home = match_path(real, "~", home=os.path.realpath(home), user=user)
    if is_in_home and not setup.sees_home:
        return False
    if is_system and not is_in_home:
        return False
    return _may_be_bound(real, home, user) and os.path.exists(real)


def _may_be_bound(real: str, home: str, user: str) -> bool:
    try:
        policies = load_policies()
    except PolicyError:
        return False
    return all(
        any(match_path(real, pattern.removesuffix(":ro"), home=home, user=user) for pattern in rules.binds)
        for rules in policies
    )
