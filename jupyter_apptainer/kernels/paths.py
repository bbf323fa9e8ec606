"""Paths of the container as the host has them, by the table of binds."""

from __future__ import annotations

import os
import pwd

from ..bridge.paths import PathMap
from .plan import LaunchPlan


def build_path_map(plan: LaunchPlan) -> PathMap:
    """Return the table of the container's paths and the host's."""
    mounts = tuple((bind.destination, bind.source) for bind in plan.binds)
    if plan.options.home:
        source, _, home = plan.options.home.rpartition(":")
    else:
        # The engine then mounts the home that passwd(5) has.
        source = home = pwd.getpwuid(os.getuid()).pw_dir
    return PathMap(mounts, (home, source), plan.cwd)


def map_to_host(path: str, plan: LaunchPlan) -> str | None:
    """Return the host's path of a file in the container, or None where the host has none: it is in the image.

    Relative paths are taken from the kernel's working directory.
    """
    found = build_path_map(plan).find_host(path)
    return found if found is not None and os.path.exists(found) else None
