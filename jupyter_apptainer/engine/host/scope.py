"""Whether the engine can give a container a cgroup: asked of systemd, with a cgroup that lives as long as `true`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

from .processes import probe_cgroups

_TIMEOUT_S = 5.0
_LIMITS = ("MemoryMax=64M", "CPUQuota=50%", "TasksMax=16")


def find_cgroup_obstacle(environ: Mapping[str, str]) -> str:
    """Return why `--memory`, `--cpus` and `--pids-limit` of the engine cannot work here; empty where they can.

    The engine makes a systemd scope, of the user's own manager where it is not root, and so does this.
    """
    probe = probe_cgroups(environ)
    if probe.status != "ok":
        return probe.detail.partition(": ")[0]
    program = shutil.which("systemd-run")
    return try_scope(program) if program else "systemd-run is not installed"


def try_scope(program: str) -> str:
    """Run `true` in a scope with limits; return what was said where that failed, and nothing where it worked."""
    manager = () if os.geteuid() == 0 else ("--user",)
    properties = [word for limit in _LIMITS for word in ("-p", limit)]
    try:
        done = subprocess.run(
            [program, *manager, "--scope", "--quiet", "--collect", *properties, "--", "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return f"systemd-run did not answer in {_TIMEOUT_S:g} s"
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"systemd-run ended with exit status {done.returncode}"
