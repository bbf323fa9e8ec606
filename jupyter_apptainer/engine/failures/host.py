"""Failures of the machine or of the engine's installation."""

from __future__ import annotations

from collections.abc import Mapping

from ... import errors as e
from ..capabilities import name_capabilities
from .rule import Rule, build_row


def _advise_capabilities(words: Mapping[str, str]) -> str:
    missing = int(words["wanted"], 16) & ~int(words["permitted"], 16)
    return f"add --userns (for a build: --fakeroot), or --drop-caps {','.join(name_capabilities(missing))}"


_DOCKER = "inside Docker, start the outer container with `--security-opt seccomp=unconfined`"

ROWS: tuple[Rule, ...] = (
    # Without squashfuse the engine unpacks the image in a second run of itself, whose own failure is not the point.
    build_row(
        "image-unpack",
        r"squashfuse not found, will not be able to mount SIF(?s:.*)root filesystem extraction failed",
        e.FuseHelperMissing,
        "squashfuse is not installed, and the image {subject} could not be unpacked instead",
        "`sudo apt-get install squashfuse` or `sudo dnf install squashfuse`, or `jupyter apptainer engine install`",
        where="anywhere",
    ),
    build_row(
        "capabilities",
        r"Requesting capability set 0x(?P<wanted>[0-9a-f]+) while permitted capability set is 0x(?P<permitted>[0-9a-f]+)",
        e.MissingCapabilities,
        "root lacks some of its capabilities here, and the engine asks for all of them",
        _advise_capabilities,
    ),
    build_row(
        "userns-limit",
        r"maximum number of (?P<kind>\w+) namespaces exceeded",
        e.UserNamespacesUnavailable,
        "this machine allows no more {kind} namespaces",
        "raise the limit: `sudo sysctl -w user.max_{kind}_namespaces=15000`",
    ),
    # #2027 #2360 #2457 #2608 #2691: three texts, depending on which step AppArmor stops.
    build_row(
        "apparmor",
        r"Failed to create user namespace: Permission denied"
        r"|Could not write info to setgroups: Permission denied"
        r"|mount namespace requires privileges",
        e.AppArmorUserNamespaces,
        "AppArmor on this machine forbids user namespaces to the engine",
    ),
    build_row(
        "userns-not-allowed",
        r"Failed to create user namespace: (?P<why>.+)",
        e.UserNamespacesUnavailable,
        "user namespaces cannot be created here: {why}",
        "`jupyter apptainer doctor` says which setting forbids it; " + _DOCKER,
    ),
    build_row(
        "container-process",
        r"Failed to create container process: Operation not permitted",
        e.UserNamespacesUnavailable,
        "the engine may not create its container process here",
        "`jupyter apptainer doctor` says which setting forbids it; " + _DOCKER,
    ),
    build_row(
        "fakeroot-without-userns",
        r"--fakeroot used without sandbox image or user namespaces",
        e.UserNamespacesUnavailable,
        "--fakeroot needs user namespaces, and there are none here",
    ),
    build_row(
        "subuid",
        r"no mapping entry found in (?P<path>/etc/sub[ug]id) for (?P<user>\S+)",
        e.FakerootUnavailable,
        "{user} has no range of ids in {path}, which --fakeroot needs",
        "leave --fakeroot out as root; or give a range: "
        "`sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}`",
    ),
    build_row(
        "newuidmap",
        r"'(?P<program>new[ug]idmap)' execution failed|could not use fakeroot: .*?(?P<missing>new[ug]idmap)",
        e.FakerootUnavailable,
        "--fakeroot does not work here: the program that maps ids (newuidmap, newgidmap) failed",
        "it must be setuid root: `sudo apt-get install uidmap` or `sudo dnf install shadow-utils`; "
        "inside another container it cannot work",
    ),
    build_row(
        "fakeroot-other",
        r"could not use fakeroot: (?P<why>.+)",
        e.FakerootUnavailable,
        "--fakeroot cannot be used here: {why}",
    ),
    build_row(
        "fuse-device",
        r"fuse: (?:failed to open /dev/fuse: (?P<why>.+)|device not found|mount failed: .+)",
        e.FuseUnavailable,
        "FUSE does not work here: /dev/fuse cannot be used",
        "everybody must be able to open it: `sudo modprobe fuse; sudo chmod 666 /dev/fuse`; without it only images "
        "unpacked to a folder work: `apptainer build --sandbox DIR IMAGE`",
    ),
    build_row(
        "fuse2fs-missing",
        r"failed to attach loop device|failed to mount ext3 filesystem|fuse2fs not found",
        e.FuseHelperMissing,
        "an ext3 overlay cannot be mounted: fuse2fs is not installed",
        "`sudo apt-get install fuse2fs` or `sudo dnf install fuse2fs`, or `jupyter apptainer engine install`",
    ),
    build_row(
        "fuse-overlayfs-missing",
        r"can't mount overlay filesystem to (?P<path>.+?): invalid argument",
        e.FuseHelperMissing,
        "an overlay cannot be laid over the image: fuse-overlayfs is not installed",
        "`sudo apt-get install fuse-overlayfs` or `sudo dnf install fuse-overlayfs`, or `jupyter apptainer engine install`",
    ),
    # #1232 #1033: the engine waits 10 s for a helper.
    build_row(
        "fuse-slow",
        r"(?P<program>\S+) failed to mount (?P<path>.+?) in \d+s",
        e.FuseMountTimeout,
        "{program} did not mount {subject} in time",
    ),
    # Before the broken helper's other texts: the instance is there, its files are not.
    build_row(
        "instance-broken",
        r"transport endpoint is not connected",
        e.InstanceBroken,
        "the file system of {subject} is gone: the program that mounted it has died",
    ),
    build_row(
        "dbus",
        r"failed to connect to dbus|Failed to connect to bus",
        e.DbusUnavailable,
        "the user's D-Bus did not answer",
        "try again in a moment; if no limits are needed, `unset DBUS_SESSION_BUS_ADDRESS`",
    ),
    build_row(
        "cgroups",
        r"cannot use cgroups - (?P<why>.+)|stats are only available if cgroups are enabled",
        e.CgroupsUnavailable,
        "limits and statistics by cgroups are not available here",
    ),
    build_row(
        "network",
        r"network requires root or a suid installation",
        e.NetworkUnavailable,
        "networks other than the host's need root or a setuid install",
    ),
    build_row(
        "hidepid",
        r"hidepid option set on /proc mount",
        e.HidePidMount,
        "/proc is mounted with hidepid, and the setuid engine refuses that",
        "`sudo mount -o remount,hidepid=0 /proc`, or use an engine without setuid: `jupyter apptainer engine install`",
    ),
    build_row(
        "nvidia-container-cli",
        r'"nvidia-container-cli": executable file not found',
        e.EngineError,
        "nvidia-container-cli is not installed on this machine",
        "use `--nv` without `--nvccli`",
    ),
)
