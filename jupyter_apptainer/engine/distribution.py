"""The distribution's own package of the engine, where its suites offer one and we may install it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .apt import PrivateApt, parse_candidate
from .locate import MINIMUM_VERSIONS
from .step import OnProgress, StepError, build_step_environment, find_program, run_step

PACKAGE = "apptainer"
# What the engine uses if it is there; some builds of the package bring their own, so nothing depends on these.
HELPERS = ("squashfuse", "fuse2fs", "fuse-overlayfs", "fakeroot", "uidmap", "e2fsprogs", "debootstrap")


def install_distribution_package(scratch: Path, on_progress: OnProgress) -> None:
    """Install the package system-wide, as root or by sudo without a password. Raises StepError with the reason."""
    if find_program("apt-get"):
        offered, update, install = find_apt_version(scratch), ("apt-get", "-q", "update"), ("apt-get", "-qy", "install")
    elif find_program("dnf"):
        offered, update, install = find_dnf_version(), ("dnf", "-q", "makecache"), ("dnf", "-y", "install")
    else:
        raise StepError("this host has neither apt-get nor dnf")
    if offered is None:
        raise StepError(f"the suites that this host is configured for do not offer {PACKAGE}")
    if parse_package_version(offered) < MINIMUM_VERSIONS["apptainer"]:
        raise StepError(f"this host's suites offer only {PACKAGE} {offered}, which is too old")
    privilege = find_privilege()
    if privilege is None:
        raise StepError(
            f"{PACKAGE} {offered} is offered, but only root may install it: `sudo {' '.join(install)} {PACKAGE}`"
        )
    on_progress(f"Installing {PACKAGE} {offered} with {install[0]}")
    env = build_step_environment() | {"DEBIAN_FRONTEND": "noninteractive"}
    run_step((*privilege, *update), "update the package lists", env=env, timeout_s=300)
    wanted = [PACKAGE, *(name for name in HELPERS if install[0] == "apt-get" and _is_offered(name))]
    run_step((*privilege, *install, *wanted), f"install {PACKAGE}", env=env, timeout_s=900)


def find_privilege() -> tuple[str, ...] | None:
    """Return what must stand before a command to run it as root: nothing, `sudo -n`, or None where we may not."""
    if os.geteuid() == 0:
        return ()
    if not find_program("sudo"):
        return None
    try:
        run_step(("sudo", "-n", "true"), "use sudo without a password", timeout_s=15)
    except StepError:
        return None
    return ("sudo", "-n")


def find_apt_version(scratch: Path) -> str | None:
    """Return the version that the host's suites offer, asking the mirror where the host keeps no lists (as in containers)."""
    if run_step(
        ("apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: Packages"), "look for lists"
    ).stdout:
        return parse_candidate(run_step(("apt-cache", "policy", PACKAGE), f"look for {PACKAGE}").stdout)
    apt = PrivateApt(scratch / "host", None)
    apt.update()
    return apt.find_candidate(PACKAGE)


def find_dnf_version() -> str | None:
    """Return the version that dnf's repositories offer."""
    argv = ("dnf", "-q", "repoquery", "--latest-limit=1", "--queryformat", "%{version}\n", PACKAGE)
    return next(iter(run_step(argv, f"look for {PACKAGE}", timeout_s=300).stdout.split()), None)


def parse_package_version(text: str) -> tuple[int, int, int]:
    """Parse "1.4.5-2", "1:1.3" or "1.4.0~rc1+ds-1" to the engine's own three numbers."""
    match = re.match(r"(?:\d+:)?(\d+)(?:\.(\d+))?(?:\.(\d+))?", text)
    numbers = match.groups() if match else ()
    major, minor, patch = (int(number or 0) for number in numbers or (0, 0, 0))
    return major, minor, patch


def _is_offered(name: str) -> bool:
    return parse_candidate(run_step(("apt-cache", "policy", name), f"look for {name}").stdout) is not None
