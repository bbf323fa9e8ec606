"""User namespaces, and what may forbid them: sysctls, AppArmor, a surrounding container, missing capabilities."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..capabilities import name_capabilities
from ..locate import Capabilities, EngineInfo, load_capabilities
from .probe import ROOT, Probe, read_text

_TRIAL_TIMEOUT_S = 10
# What the engine's starter does first. In a process of its own: what it changes could not be changed back.
_TRIAL = """
import ctypes, json, os
libc = ctypes.CDLL(None, use_errno=True)
ids = os.getuid(), os.getgid()
def unshare(flag):
    if libc.unshare(flag):
        raise OSError(ctypes.get_errno(), "unshare")
def write(name, text):
    with open("/proc/self/" + name, "w") as stream:
        stream.write(text)
steps = (
    ("user namespace", lambda: unshare(0x10000000)),
    ("setgroups", lambda: write("setgroups", "deny")),
    ("uid map", lambda: write("uid_map", "0 %d 1" % ids[0])),
    ("gid map", lambda: write("gid_map", "0 %d 1" % ids[1])),
    ("mount namespace", lambda: unshare(0x00020000)),
)
for name, step in steps:
    try:
        step()
    except OSError as error:
        print(json.dumps([name, error.errno]))
        break
else:
    print(json.dumps([None, 0]))
"""
_RESTRICTION = "proc/sys/kernel/apparmor_restrict_unprivileged_userns"
_IN_DOCKER = (
    "docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined --device /dev/fuse …"
    "  # Kubernetes: securityContext.seccompProfile.type: Unconfined"
)


@dataclass(frozen=True)
class NamespaceTrial:
    """How far the steps of a container's start got. step: the one that failed, None for success."""

    step: str | None
    errno: int = 0


def try_user_namespace() -> NamespaceTrial:
    """Make a user namespace with ourselves as root in it, and a mount namespace in that; about 25 ms."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _TRIAL],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TRIAL_TIMEOUT_S,
    )
    if done.returncode:
        return NamespaceTrial("start", errno.EPERM)
    step, number = json.loads(done.stdout)
    return NamespaceTrial(step, number)


def probe_user_namespaces(
    engine: EngineInfo | None, trial: NamespaceTrial | None = None, *, root: Path = ROOT
) -> Probe:
    """Check that this process can make a user namespace, by doing it (or from `trial`)."""
    name = "user namespaces"
    trial = trial or try_user_namespace()
    if trial.step is None:
        return Probe(name, "ok", "a user namespace with a mount namespace in it can be made")
    detail = f"the kernel refuses the step {trial.step!r}: {os.strerror(trial.errno)}"
    if engine and engine.setuid:
        return Probe(name, "warn", f"{detail}; the engine is installed with setuid and can do without", None)
    if _is_restricted(root) and engine and find_apparmor_profile(engine, root):
        return Probe(name, "ok", f"{detail} for Python, but the engine has an AppArmor profile that allows it")
    cause, fix = _find_cause(trial, root)
    return Probe(name, "fail", f"{detail}{cause}", fix)


def _find_cause(trial: NamespaceTrial, root: Path) -> tuple[str, str | None]:
    if trial.errno in (errno.ENOSPC, errno.EUSERS) or read_text(root / "proc/sys/user/max_user_namespaces") == "0":
        kind = "mnt" if trial.step == "mount namespace" else "user"
        limit = read_text(root / f"proc/sys/user/max_{kind}_namespaces")
        return f"; the limit is {limit}", f"sudo sysctl -w user.max_{kind}_namespaces=15000"
    if read_text(root / "proc/sys/kernel/unprivileged_userns_clone") == "0":
        return "; they are only for root here", "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    if _is_restricted(root):
        return "; AppArmor restricts them (see below)", None
    inside = describe_confinement(os.environ, root)
    if inside:
        return f"; {inside}", _IN_DOCKER
    return "", "ask the administrator: a security module or a chroot forbids it"


def probe_apparmor(engine: EngineInfo | None, *, root: Path = ROOT) -> Probe:
    """Check whether AppArmor restricts user namespaces (Ubuntu from 23.10 on), and has a profile for this very engine."""
    if not _is_restricted(root):
        return Probe("AppArmor", "ok", "it does not restrict user namespaces here")
    if engine is None:
        return Probe("AppArmor", "warn", "it restricts user namespaces; the engine will need a profile")
    profile = find_apparmor_profile(engine, root)
    if profile:
        return Probe("AppArmor", "ok", f"it restricts user namespaces, and {profile} allows them to the engine")
    starter = _find_starters(engine)[-1]
    detail = f"it restricts user namespaces, and no profile allows them to {starter}"
    return Probe("AppArmor", "warn" if engine.setuid else "fail", detail, build_apparmor_fix(starter))


def build_apparmor_fix(starter: str) -> str:
    """Return the command that gives the starter the profile of the engine's INSTALL.md."""
    profile = f'abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile jupyter-apptainer "{starter}" flags=(unconfined) {{\\n  userns,\\n}}\\n'
    path = "/etc/apparmor.d/jupyter-apptainer"
    return f"printf {shlex.quote(profile)} | sudo tee {path} && sudo apparmor_parser -r {path}"


def find_apparmor_profile(engine: EngineInfo, root: Path = ROOT) -> str | None:
    """Return the file whose profile is attached to the engine's starter; a package's profile for another path is no help."""
    starters = _find_starters(engine)
    for path in sorted((root / "etc/apparmor.d").glob("*")):
        text = read_text(path) if path.is_file() else ""
        if "userns" in text and any(_is_attached(text, starter) for starter in starters):
            return str(path)
    return None


def _is_attached(text: str, starter: str) -> bool:
    # AppArmor writes alternatives as {a,b}; "starter{,-suid}" is what packages have.
    return bool(re.search(re.escape(starter) + r"(?:\{,-suid\})?(?=[\s\"])", text))


def _find_starters(engine: EngineInfo) -> tuple[str, ...]:
    # AppArmor sees the path without links, so that comes last: it is the one to name in a new profile.
    starter = os.path.join(engine.libexec, engine.dot_folder.lstrip("."), "bin", "starter")
    return (starter, os.path.realpath(starter))


def _is_restricted(root: Path) -> bool:
    return read_text(root / _RESTRICTION) == "1"


def probe_confinement(engine: EngineInfo | None, environ: Mapping[str, str], *, root: Path = ROOT) -> Probe:
    """Say whether we are inside a container or under a filter. What that hinders shows in the other checks."""
    name = "confinement"
    if engine and engine.setuid and _read_status(root).get("NoNewPrivs") == "1":
        detail = "this process may not gain privileges (no_new_privs), so the setuid engine will not work"
        return Probe(name, "fail", detail, "jupyter apptainer engine install  # one without setuid")
    inside = describe_confinement(environ, root)
    return Probe(name, "ok", inside or "not inside another container, no system call filter")


def describe_confinement(environ: Mapping[str, str], root: Path = ROOT) -> str:
    """Say in words which signs of a surrounding container or filter there are; empty for none."""
    signs = []
    if (root / ".dockerenv").exists() or (root / "run/.containerenv").exists():
        signs.append("this looks like the inside of a Docker or Podman container")
    elif (root / ".singularity.d").exists():
        signs.append("inside an Apptainer container")
    if "KUBERNETES_SERVICE_HOST" in environ:
        signs.append("in a Kubernetes pod")
    if _read_status(root).get("Seccomp") == "2":
        signs.append("a system call filter (seccomp) is active")
    # The map of a namespace that has none yet is an empty file.
    uid_map = root / "proc/self/uid_map"
    if uid_map.exists() and read_text(uid_map).split() != ["0", "0", "4294967295"]:
        signs.append("already in a user namespace")
    return ", ".join(signs)


def _read_status(root: Path) -> dict[str, str]:
    lines = (line.partition(":") for line in read_text(root / "proc/self/status").splitlines())
    return {key: value.strip() for key, _, value in lines}


def probe_capabilities(capabilities: Capabilities | None = None) -> Probe:
    """Check that root is really root: the engine asks for every capability and ends where one is missing."""
    name = "capabilities"
    if os.geteuid() != 0:
        return Probe(name, "ok", "not root: none are needed")
    missing = (capabilities or load_capabilities()).missing
    if not missing:
        return Probe(name, "ok", "root has all of them")
    names = ",".join(name_capabilities(missing))
    detail = (
        f"root lacks {names} here; container kernels use --userns, commands typed by hand must say how to do without"
    )
    return Probe(name, "warn", detail, f"apptainer exec --userns IMAGE …  # or: --drop-caps {names}")
