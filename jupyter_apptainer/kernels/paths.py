"""Paths of the container as the host has them, by the table of binds."""

from __future__ import annotations

import os
import posixpath
import pwd

from .plan import LaunchPlan


def map_to_host(path: str, plan: LaunchPlan) -> str | None:
    """Return the host's path of a file in the container, or None where the host has none: it is in the image.

    Relative paths are taken from the kernel's working directory.
    """
    absolute = posixpath.normpath(posixpath.join(plan.cwd, path))
    # A later mount lies on top of an earlier one.
    for bind in reversed(plan.binds):
        if absolute == bind.destination or absolute.startswith(bind.destination.rstrip("/") + "/"):
            inside = posixpath.relpath(absolute, bind.destination)
            found = bind.source if inside == "." else posixpath.join(bind.source, inside)
            return found if os.path.exists(found) else None
    if plan.options.home:
        source, _, home = plan.options.home.rpartition(":")
    else:
        # The engine then mounts the home that passwd(5) has.
        source = home = pwd.getpwuid(os.getuid()).pw_dir
    if absolute.startswith(home + "/"):
        found = posixpath.join(source, posixpath.relpath(absolute, home))
        return found if os.path.exists(found) else None
    return None
