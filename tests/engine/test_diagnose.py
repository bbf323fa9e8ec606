"""Recorded words of the engine, one or more for every row of the table, and what must come of them."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from jupyter_apptainer import errors as e
from jupyter_apptainer.engine.command import Completed
from jupyter_apptainer.engine.diagnose import RULES, diagnose, find_rule, find_warnings

SESSION = "/usr/lib/apptainer/mnt/session"
NOISE = """\
INFO:    Instance stats will not be available - cannot use systemd cgroups manager, systemd not running as init on this host
INFO:    gocryptfs not found, will not be able to use gocryptfs
"""
CLEANUP = f"""\
INFO:    Terminating squashfuse_ll after timeout
INFO:    Timeouts can be caused by a running background process
INFO:    Cleanup error: while stopping driver for {SESSION}/rootfs: squashfuse_ll exited: fuse: failed to unmount {SESSION}/rootfs: Invalid argument
ERROR:   container cleanup failed: no instance found with name jpa-1
"""
LAST = "\nFATAL:   while executing starter: failed to start instance: while running /usr/lib/apptainer/bin/starter: exit status 255\n"
OVERLAY = ("apptainer", "exec", "--overlay", "work.img", "a.sif", "python")


@dataclass(frozen=True)
class Sample:
    """`text` is what the engine printed; `says` must be in the message, `advises` in the hint."""

    rule: str
    text: str
    error: type[e.ApptainerError]
    says: str
    advises: str = ""
    argv: tuple[str, ...] = ("apptainer", "exec", "a.sif", "python")
    returncode: int = 255
    title: str = "run python in a.sif"
    subject: str = "a.sif"


def coloured(text: str) -> str:
    """As the engine's C part prints it, terminal or not."""
    return f"\x1b[91mERROR  : {text}\n\x1b[0m"


SAMPLES = (
    # --- the host
    Sample(
        "image-unpack",
        "INFO:    squashfuse not found, will not be able to mount SIF or other squashfs files\n"
        "INFO:    Converting SIF file to temporary sandbox...\n"
        "FATAL:   while extracting /d/a.sif: root filesystem extraction failed: extract command failed: "
        + coloured("Requesting capability set 0x000001ffffffffff while permitted capability set is 0x000001fffeffffff")
        + ": exit status 1\n",
        e.FuseHelperMissing,
        "squashfuse is not installed",
        "sudo apt-get install squashfuse",
    ),
    Sample(
        "capabilities",
        coloured("Requesting capability set 0x000001ffffffffff while permitted capability set is 0x000001fffeffffff"),
        e.MissingCapabilities,
        "root lacks some",
        "--drop-caps CAP_SYS_RESOURCE",
        returncode=1,
    ),
    Sample(
        "userns-limit",
        coloured(
            "Failed to create user namespace: maximum number of user namespaces exceeded, "
            "check /proc/sys/user/max_user_namespaces"
        ),
        e.UserNamespacesUnavailable,
        "no more user namespaces",
        "sudo sysctl -w user.max_user_namespaces=",
        returncode=1,
    ),
    Sample(
        "userns-limit",
        coloured(
            "Failed to create mount namespace: maximum number of mount namespaces exceeded, check /proc/sys/user/max_mnt_namespaces"
        ),
        e.UserNamespacesUnavailable,
        "no more mount namespaces",
    ),
    Sample(
        "apparmor",
        coloured("Failed to create user namespace: Permission denied"),
        e.AppArmorUserNamespaces,
        "AppArmor",
        "profile",
    ),
    Sample(
        "apparmor",
        coloured("Could not write info to setgroups: Permission denied")
        + coloured("Error while waiting event for user namespace mappings: no event received"),
        e.AppArmorUserNamespaces,
        "AppArmor",
    ),
    Sample(
        "apparmor",
        coloured("Failed to create mount namespace: mount namespace requires privileges, check Apptainer installation"),
        e.AppArmorUserNamespaces,
        "AppArmor",
    ),
    Sample(
        "userns-not-allowed",
        coloured("Failed to create user namespace: not allowed to create user namespace"),
        e.UserNamespacesUnavailable,
        "not allowed to create user namespace",
        "jupyter apptainer doctor",
        returncode=1,
    ),
    Sample(
        "container-process",
        coloured("Failed to create container process: Operation not permitted"),
        e.UserNamespacesUnavailable,
        "container process",
        "seccomp=unconfined",
    ),
    Sample(
        "fakeroot-without-userns",
        "INFO:    User not listed in /etc/subuid, trying root-mapped namespace\nINFO:    No user namespaces available\n"
        "FATAL:   --fakeroot used without sandbox image or user namespaces\n",
        e.UserNamespacesUnavailable,
        "--fakeroot needs user namespaces",
    ),
    Sample(
        "subuid",
        "FATAL:   could not use fakeroot: no mapping entry found in /etc/subuid for root\n",
        e.FakerootUnavailable,
        "root has no range of ids in /etc/subuid",
        "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 root",
    ),
    Sample(
        "newuidmap",
        "newgidmap: write to gid_map failed: Operation not permitted\n"
        + coloured("'newgidmap' execution failed. Check that 'newgidmap' is setuid root or has setcap cap_setgid+eip.")
        + coloured("Error while waiting event for user namespace mappings: no event received"),
        e.FakerootUnavailable,
        "newuidmap, newgidmap",
        "sudo apt-get install uidmap",
        returncode=1,
    ),
    Sample(
        "fakeroot-other",
        "FATAL:   could not use fakeroot: while reading /etc/subuid: permission denied\n",
        e.FakerootUnavailable,
        "while reading /etc/subuid",
        "usermod",
    ),
    Sample(
        "fuse-device",
        NOISE
        + "FATAL:   container creation failed: image driver mount failure: image driver squashfuse_ll instance exited "
        "with error: squashfuse_ll exited: fuse: failed to open /dev/fuse: Permission denied\n",
        e.FuseUnavailable,
        "/dev/fuse",
        "sudo chmod 666 /dev/fuse",
    ),
    Sample(
        "fuse-device",
        "FATAL:   container creation failed: image driver mount failure: image driver squashfuse_ll instance exited "
        "with error: squashfuse_ll exited: fuse: device not found, try 'modprobe fuse' first\n",
        e.FuseUnavailable,
        "/dev/fuse",
        "modprobe fuse",
    ),
    Sample(
        "fuse2fs-missing",
        "INFO:    fuse2fs not found, will not be able to mount EXT3 filesystems\n"
        f"FATAL:   container creation failed: mount hook function failure: mount /proc/self/fd/6->{SESSION}/overlay-images/0 "
        "error: while mounting image /proc/self/fd/6: failed to find loop device: could not attach image file to loop device: "
        "failed to attach loop device: could not open /dev/loop0: permission denied\n",
        e.FuseHelperMissing,
        "fuse2fs is not installed",
        "sudo apt-get install fuse2fs",
        argv=OVERLAY,
    ),
    Sample(
        "fuse2fs-missing",
        f"FATAL:   container creation failed: mount hook function failure: mount /proc/self/fd/6->{SESSION}/overlay-images/0 "
        "error: while mounting image /proc/self/fd/6: failed to mount ext3 filesystem: operation not permitted\n",
        e.FuseHelperMissing,
        "fuse2fs is not installed",
        argv=OVERLAY,
    ),
    Sample(
        "fuse-overlayfs-missing",
        "FATAL:   container creation failed: mount hook function failure: hook function for tag layer returns error: "
        f"can't mount overlay filesystem to {SESSION}/final: invalid argument\n",
        e.FuseHelperMissing,
        "fuse-overlayfs is not installed",
        "sudo apt-get install fuse-overlayfs",
    ),
    Sample(
        "fuse-slow",
        f"FATAL:   container creation failed: image driver mount failure: fuse2fs failed to mount {SESSION}/overlay-images/0 in 10s\n",
        e.FuseMountTimeout,
        "fuse2fs did not mount a.sif in time",
        "try again",
    ),
    Sample(
        "instance-broken",
        "source: open /.singularity.d/env/01-base.sh: transport endpoint is not connected\n"
        "FATAL:   failed to open /bin/sh for inspection: failed to open elf binary /bin/sh: open /bin/sh: "
        "transport endpoint is not connected\n",
        e.InstanceBroken,
        "instance://jpa-1 is gone",
        "stop it and start a new one",
        subject="instance://jpa-1",
    ),
    Sample(
        "dbus",
        "FATAL:   container creation failed: while applying cgroups config: cannot use cgroups - failed to connect to dbus "
        "(hint: for rootless containers you may need to set DBUS_SESSION_BUS_ADDRESS)\n",
        e.DbusUnavailable,
        "D-Bus",
        "unset DBUS_SESSION_BUS_ADDRESS",
    ),
    Sample(
        "cgroups",
        CLEANUP
        + "FATAL:   container creation failed: while applying cgroups config: cannot use cgroups - cannot use systemd "
        "cgroups manager, systemd not running as init on this host\n",
        e.CgroupsUnavailable,
        "cgroups are not available",
        "leave out the limits",
    ),
    Sample(
        "cgroups",
        'Error for command "stats": stats are only available if cgroups are enabled, please run the instance with --cgroups\n',
        e.CgroupsUnavailable,
        "statistics",
        returncode=1,
    ),
    Sample(
        "network",
        "FATAL:   container creation failed: network requires root or a suid installation with /etc/subuid --fakeroot; "
        "non-root users can only use --network=none unless permitted by the administrator\n",
        e.NetworkUnavailable,
        "networks other than the host's",
        "network: none",
    ),
    Sample(
        "hidepid",
        "FATAL:   hidepid option set on /proc mount, require 'hidepid=0' or 'gid=' option set for full functionality\n",
        e.HidePidMount,
        "hidepid",
        "remount,hidepid=0",
    ),
    Sample(
        "nvidia-container-cli",
        "ERROR:   container cleanup failed: no instance found with name jpa-1\nFATAL:   container creation failed: exec: "
        '"nvidia-container-cli": executable file not found in $PATH\n' + LAST,
        e.EngineError,
        "nvidia-container-cli is not installed",
        "--nv",
    ),
    # --- disks and overlays
    Sample(
        "disk-full-in-section",
        "INFO:    Running post scriptlet\n+ pip install torch\nERROR: Could not install packages due to an OSError: "
        "[Errno 28] No space left on device\nFATAL:   While performing build: while running engine: while running %post "
        "section: exit status 1\n",
        e.DiskFull,
        "while the image was built",
        "export APPTAINER_TMPDIR=",
        title="build b.sif",
    ),
    Sample(
        "disk-full",
        "FATAL:   while zero'ing overlay image /data/a.img.ext3: exit status 1\nCommand error: /usr/bin/dd: error writing "
        "'/data/a.img.ext3': No space left on device\n21+0 records in\n20+0 records out\n",
        e.DiskFull,
        "/data/a.img.ext3",
        "df -h",
    ),
    Sample(
        "disk-full",
        "ERROR:   unpackSIF failed: root filesystem extraction failed: failed to copy content in staging file: write "
        "/tmp/build-temp-3564038742/archive-3382410956: no space left on device\nFATAL:   While performing build: packer failed "
        "to pack: while unpacking local image: root filesystem extraction failed: failed to copy content in staging file: write "
        "/tmp/build-temp-3564038742/archive-3382410956: no space left on device\n",
        e.DiskFull,
        "/tmp/build-temp-3564038742",
        title="build b.sif",
    ),
    Sample(
        "disk-full",
        "FATAL:   While performing build: while creating SIF: while creating container: write /home/u/o.sif: disk quota exceeded\n",
        e.DiskFull,
        "/home/u/o.sif",
    ),
    Sample(
        "config-dir",
        "FATAL:   while executing starter: failed to create instance log files: mkdir /home/u/.apptainer: permission denied\n",
        e.ConfigDirUnwritable,
        "/home/u/.apptainer",
        "export APPTAINER_CONFIGDIR=",
    ),
    Sample(
        "temporary-folder",
        "FATAL:   while creating temporary overlay directory: mkdir /scratch/u/overlay-4204598055: permission denied\n",
        e.CommandError,
        "/scratch/u/overlay-4204598055: permission denied",
        "export APPTAINER_TMPDIR=",
    ),
    Sample(
        "overlay-missing",
        "FATAL:   while loading overlay images: failed to open overlay image /data/my work.img: failed to retrieve path for "
        "/data/my work.img: lstat /data/my work.img: no such file or directory\n",
        e.OverlayNotFound,
        "/data/my work.img does not exist",
        "jupyter apptainer overlay create '/data/my work.img'",
        argv=OVERLAY,
    ),
    Sample(
        "overlay-busy",
        "FATAL:   while loading overlay images: failed to open overlay image a.img: while locking ext3 partition from /data/a.img: "
        "can't open /data/a.img for writing, currently in use by another process\n",
        e.OverlayBusy,
        "/data/a.img is in use",
        "another user's process",
    ),
    Sample(
        "overlay-busy",
        "FATAL:   while loading overlay images: failed to open overlay image a.img: while locking ext3 partition from /data/a.img: "
        "can't open /data/a.img for reading, currently in use for writing by another process\n",
        e.OverlayBusy,
        "/data/a.img is in use",
    ),
    Sample(
        "overlay-invalid",
        "FATAL:   while loading overlay images: failed to open overlay image junk.img: image format not recognized\n",
        e.ImageInvalid,
        "junk.img is no overlay image",
        "overlay create",
    ),
    Sample(
        "overlay-two",
        "FATAL:   while loading overlay images: you can't specify more than one writable overlay, /d/a.img contains a writable "
        "overlay, requires to use '--overlay /d/b.img:ro'\n",
        e.OverlayConflict,
        "/d/a.img and /d/b.img",
        "/d/b.img:ro",
    ),
    Sample(
        "overlay-and-tmpfs",
        "FATAL:   while loading overlay images: you can't specify --writable-tmpfs with another writable overlay image (/d/b.img)\n",
        e.OverlayConflict,
        "/d/b.img",
        "leave out the tmpfs",
    ),
    Sample(
        "overlay-mode",
        "INFO:    Try appending ':ro' to your overlay image or using '--fakeroot'\nFATAL:   container creation failed: mount hook "
        "function failure: hook function for tag prelayer returns error: setup of overlay upper dir failed: "
        f"{SESSION}/overlay-images/0/upper is not writable: permission denied\n",
        e.OverlayModeMismatch,
        "work.img",
        "work.img:ro",
        argv=OVERLAY,
    ),
    Sample(
        "overlay-mode-files",
        "rm: cannot remove '/opt/venv/lib/x.py': Value too large for defined data type\n",
        e.OverlayModeMismatch,
        "work.img",
        "--fakeroot",
        argv=OVERLAY,
        returncode=1,
    ),
    Sample(
        "overlay-exists",
        "FATAL:   EXT3 overlay image a.img already exists\n",
        e.OverlayCreateError,
        "a.img exists already",
    ),
    Sample(
        "overlay-small",
        "FATAL:   image size must be equal or greater than 64 MiB\n",
        e.OverlayCreateError,
        "64 MiB",
        "overlay create FILE",
    ),
    Sample(
        "overlay-signed",
        "FATAL:   SIF image a.sif is signed: could not add writable overlay\n",
        e.OverlayCreateError,
        "a.sif is signed",
        "overlay create",
    ),
    Sample(
        "overlay-create",
        "FATAL:   while zero'ing overlay image /nosuchdir/b.img.ext3: exit status 1\n"
        "Command error: /usr/bin/dd: failed to open '/nosuchdir/b.img.ext3': No such file or directory\n",
        e.OverlayCreateError,
        "/nosuchdir/b.img could not be written",
    ),
    Sample(
        "overlay-not-embedded",
        "FATAL:   no SIF writable overlay partition found in /d/a.sif\n",
        e.OverlayNotFound,
        "/d/a.sif has no overlay",
        "apptainer overlay create --size 1024 /d/a.sif",
    ),
    Sample(
        "image-not-writable",
        "FATAL:   could not use /d/a.sif for writing, you don't have write permissions\n",
        e.OverlayReadOnly,
        "/d/a.sif was to be used with --writable",
        "--overlay FILE",
    ),
    Sample(
        "overlay-unclean",
        "FATAL:   container creation failed: image driver mount failure: fuse2fs exited: /proc/self/fd/3: Writes are not supported "
        "by this file system with recovery needed. Please run e2fsck -fy.\n",
        e.OverlayUnclean,
        "work.img was not closed properly",
        "overlay check work.img",
        argv=OVERLAY,
    ),
    # --- images
    Sample(
        "image-blocks",
        "source: read /.singularity.d/env/01-base.sh: input/output error\n"
        'FATAL:   "python": executable file not found in $PATH\n',
        e.ImageCorrupt,
        "a.sif is damaged: /.singularity.d/env/01-base.sh",
        "fetch or build",
    ),
    Sample(
        "image-blocks",
        NOISE
        + "FATAL:   exec /.singularity.d/startscript failed: fork/exec /.singularity.d/startscript: input/output error\n"
        "ERROR:   container cleanup failed: no instance found with name jpa-1\n" + LAST,
        e.ImageCorrupt,
        "startscript",
    ),
    Sample(
        "image-cut",
        "FATAL:   container creation failed: image driver mount failure: image driver squashfuse_ll instance exited with error: "
        "squashfuse_ll exited: Something went wrong trying to read the squashfs image.\n",
        e.ImageCorrupt,
        "a.sif is damaged or was not copied to its end",
    ),
    Sample(
        "image-superblock",
        "FATAL:   While checking container encryption: could not open image /d/a.sif: while checking system partition header: "
        "error while checking squashfs header: while parsing squashfs super block: not a valid squashfs image\n",
        e.ImageCorrupt,
        "no valid beginning",
    ),
    Sample(
        "image-superblock",
        "FATAL:   container creation failed: while mounting image /proc/self/fd/3: squashfs partition contains a bad superblock "
        "(corrupted image ?)\n",
        e.ImageCorrupt,
        "no valid beginning",
    ),
    Sample(
        "image-header",
        "FATAL:   While checking container encryption: could not open image /d/cut.sif: reading descriptors: unexpected EOF\n",
        e.ImageCorrupt,
        "/d/cut.sif was cut off",
    ),
    Sample(
        "image-missing",
        "FATAL:   While checking container encryption: could not open image /d/no such.sif: failed to retrieve path for "
        "/d/no such.sif: lstat /d/no such.sif: no such file or directory\n",
        e.ImageNotFound,
        "/d/no such.sif does not exist",
        "apptainer pull",
    ),
    Sample(
        "image-missing",
        "FATAL:   While performing build: conveyor failed to get: failed to retrieve path for /nosuch.sif: lstat /nosuch.sif: "
        "no such file or directory\n",
        e.ImageNotFound,
        "/nosuch.sif does not exist",
        title="build b.sif",
    ),
    Sample(
        "image-unreadable",
        "FATAL:   While checking container encryption: could not open image /d/a.sif: open /d/a.sif: permission denied\n",
        e.ImageNotFound,
        "/d/a.sif cannot be read",
        "chmod a+r /d/a.sif",
    ),
    Sample(
        "image-unreadable",
        "FATAL:   While checking container encryption: could not open image /d/a.sif: /d/a.sif is not readable by the current "
        "user, check permissions\n",
        e.ImageNotFound,
        "/d/a.sif cannot be read",
    ),
    Sample(
        "image-junk",
        "FATAL:   While checking container encryption: could not open image /d/junk.sif: image format not recognized\n",
        e.ImageInvalid,
        "/d/junk.sif is not an image",
        ".sif file",
    ),
    Sample(
        "image-unreadable",
        "FATAL:   While checking container encryption: could not open image /d/a.sif: /d/a.sif is not readable by the current "
        "user, check permissions\n",
        e.ImageNotFound,
        "/d/a.sif cannot be read",
    ),
    Sample(
        "image-junk",
        'Error for command "list": invalid SIF magic\n',
        e.ImageInvalid,
        "a.sif is not an image",
        returncode=1,
    ),
    # --- binds
    Sample(
        "bind-missing",
        "WARNING: skipping mount of /nosuch: stat /nosuch: no such file or directory\n"
        + CLEANUP
        + "FATAL:   container creation failed: mount hook function failure: mount /nosuch->/data error: while mounting /nosuch: "
        "mount source /nosuch doesn't exist\n" + LAST,
        e.BindSourceNotFound,
        "/nosuch, which was to be bound",
        "mkdir -p /nosuch",
    ),
    Sample(
        "bind-syntax",
        "FATAL:   While setting bind mount configuration: while parsing bind path: while getting bind path: bad bind syntax "
        '"a:b:c:": should be a:b:c\n',
        e.BindInvalid,
        '"a:b:c:"',
        "SRC:DEST:ro",
    ),
    Sample(
        "bind-syntax",
        'FATAL:   While setting bind mount configuration: while parsing mount "foo": invalid key "foo" in mount specification\n',
        e.BindInvalid,
        '"foo"',
    ),
    Sample(
        "bind-relative",
        "FATAL:   container creation failed: unable to add /tmp to mount list: destination must be an absolute path\n",
        e.BindInvalid,
        "/tmp",
    ),
    Sample(
        "bind-kind",
        "FATAL:   container creation failed: mount hook function failure: mount /etc/passwd->/tmp/ error: while mounting "
        "/etc/passwd: could not mount /etc/passwd: not a directory\n",
        e.BindInvalid,
        "/etc/passwd cannot be bound there",
    ),
    Sample(
        "mount-point-missing",
        f"FATAL:   container creation failed: mount hook function failure: mount /dev->{SESSION}/rootfs/dev error: while mounting "
        f"{SESSION}/dev: destination /dev doesn't exist in container\n",
        e.BindInvalid,
        "the folder /dev does not exist in a.sif",
        "no unpacked image",
    ),
    # --- instances
    Sample(
        "instance-exists",
        NOISE + "FATAL:   instance jpa-1 already exists\n",
        e.InstanceExists,
        "named jpa-1",
        "apptainer instance stop jpa-1",
    ),
    Sample(
        "instance-name",
        "FATAL:   while executing starter: while checking instance name: a b is not a valid instance name\n",
        e.InstanceNameInvalid,
        "'a b'",
    ),
    Sample(
        "instance-gone",
        "FATAL:   While setting image/instance: no instance found with name jpa-1\n",
        e.InstanceNotFound,
        "jpa-1",
        "apptainer instance list",
    ),
    Sample(
        "instance-gone",
        'Error for command "stop": no instance found\n',
        e.InstanceNotFound,
        "running: jpa-1",
        subject="jpa-1",
        returncode=1,
    ),
    Sample(
        "instance-gone",
        "FATAL:   while executing starter: could not open proc directory /proc/4711: no such file or directory\n",
        e.InstanceNotFound,
        "running: jpa-1",
        subject="jpa-1",
    ),
    Sample(
        "instance-gone",
        "FATAL:   orphaned (or faked) instance process\n",
        e.InstanceNotFound,
        "running: jpa-1",
        subject="jpa-1",
    ),
    # --- programs
    Sample(
        "program-in-path",
        NOISE + 'FATAL:   "python": executable file not found in $PATH\n',
        e.ProgramNotFound,
        "no program python in a.sif",
        "apptainer exec a.sif sh -c",
    ),
    Sample(
        "program-path",
        "FATAL:   stat /opt/venv/bin/python: no such file or directory\n",
        e.ProgramNotFound,
        "no program /opt/venv/bin/python",
    ),
    Sample(
        "program-path",
        "FATAL   [U=1000,P=4242]    StartProcess()                stat /bin/true: no such file or directory\n",
        e.ProgramNotFound,
        "no program /bin/true",
    ),
    Sample(
        "program-of-script",
        "/.singularity.d/startscript: 3: exec: /nosuch: not found\n",
        e.ProgramNotFound,
        "no program /nosuch",
        returncode=127,
    ),
    Sample(
        "working-directory",
        "FATAL:   failed to set working directory: chdir /nosuch: no such file or directory\n",
        e.CommandError,
        "/nosuch cannot be the working directory",
        "--bind /nosuch",
    ),
    # --- registries
    Sample(
        "registry-plain-http",
        "FATAL:   While making image from oci registry: error fetching image to cache: failed to get checksum for "
        'docker://localhost:5000/x: pinging container registry localhost:5000: Get "https://localhost:5000/v2/": '
        "http: server gave HTTP response to HTTPS client\n",
        e.RegistryError,
        "plain HTTP",
        "--no-https",
        title="pull x.sif",
        subject="docker://localhost:5000/x",
    ),
    Sample(
        "registry-plain-http",
        "FATAL:   While making image from oci registry: pinging container registry localhost:5000: Get "
        '"https://localhost:5000/v2/": tls: first record does not look like a TLS handshake\n',
        e.RegistryError,
        "plain HTTP",
    ),
    Sample(
        "registry-login",
        "FATAL:   While making image from oci registry: error fetching image to cache: failed to get checksum for docker://x/y: "
        "reading manifest latest in docker.io/x/y: requested access to the resource is denied\n",
        e.RegistryAuthError,
        "docker://x/y",
        "apptainer registry login",
        title="pull x.sif",
        subject="docker://x/y",
    ),
    Sample(
        "registry-login",
        "FATAL:   Unable to push image to oci registry: unable to push: POST https://ghcr.io/v2/x/blobs/uploads/: UNAUTHORIZED: "
        "authentication required\n",
        e.RegistryAuthError,
        "does not let us have",
        title="push a.sif",
    ),
    Sample(
        "registry-not-there",
        "FATAL:   While making image from oci registry: error fetching image to cache: failed to get checksum for "
        "docker://debian:nosuch: reading manifest nosuch in docker.io/library/debian: manifest unknown\n",
        e.RegistryError,
        "the registry has no docker://debian:nosuch",
        "tag",
        subject="docker://debian:nosuch",
    ),
    Sample(
        "registry-not-there",
        "FATAL:   While pulling image from oci registry: GET https://ghcr.io/v2/x/manifests/latest: MANIFEST_UNKNOWN: manifest unknown\n",
        e.RegistryError,
        "the registry has no",
    ),
    Sample(
        "registry-not-there",
        "FATAL:   While pulling library image: the requested image was not found in the library\n",
        e.RegistryError,
        "the registry has no",
    ),
    Sample(
        "registry-rate",
        "FATAL:   While performing build: conveyor failed to get: reading manifest latest in docker.io/library/debian: "
        "toomanyrequests: You have reached your pull rate limit.\n",
        e.RegistryError,
        "too many requests",
        "registry login",
        title="build b.sif",
    ),
    Sample(
        "registry-certificate",
        "FATAL:   While making image from oci registry: pinging container registry registry-1.docker.io: Get "
        '"https://registry-1.docker.io/v2/": x509: certificate signed by unknown authority\n',
        e.RegistryError,
        "signed by unknown authority",
        "update-ca-certificates",
    ),
    Sample(
        "registry-certificate",
        'FATAL:   While performing build: conveyor failed to get: Get "https://127.0.0.1:5964/v2/": tls: failed to verify '
        "certificate: x509: certificate signed by unknown authority; GET http://127.0.0.1:5964/v2/: unexpected status code 400 "
        "Bad Request: Client sent an HTTP request to an HTTPS server.\n",
        e.RegistryError,
        "not trusted here: certificate signed by unknown authority",
        "ca_bundle",
    ),
    Sample(
        "registry-broken-off",
        "FATAL:   While performing build: conveyor failed to get: error writing layer: unexpected EOF\n",
        e.RegistryError,
        "broke off while docker://h/x:1 was on its way",
        "try again",
        subject="docker://h/x:1",
    ),
    Sample(
        "registry-broken-off",
        "FATAL:   While pulling image from oci registry: error fetching image to cache: unable to Download Image: "
        "error writing layer: read tcp 127.0.0.1:40000->127.0.0.1:5000: read: connection reset by peer\n",
        e.RegistryError,
        "broke off",
    ),
    Sample(
        "registry-broken-off",
        'FATAL:   Unable to push image to oci registry: Patch "http://h/v2/x/blobs/uploads/1": write tcp '
        "127.0.0.1:1->127.0.0.1:2: write: broken pipe\n",
        e.RegistryError,
        "broke off",
    ),
    Sample(
        "registry-not-sif",
        "FATAL:   While pulling image from oci registry: error fetching image to cache: failed to get checksum for "
        "oras://h/x:1: invalid layer mediatype: application/vnd.oci.image.layer.v1.tar+gzip\n",
        e.RegistryError,
        "oras://h/x:1 is an OCI image",
        "docker://",
        subject="oras://h/x:1",
    ),
    Sample(
        "registry-not-oci",
        "FATAL:   While performing build: packer failed to pack: while unpacking rootfs: no extractable OCI/Docker tar "
        "layers found in this image\n",
        e.RegistryError,
        "docker://h/x:1 is a SIF file",
        "oras://",
        subject="docker://h/x:1",
    ),
    Sample(
        "archive-not-whole",
        'FATAL:   While performing build: conveyor failed to get: loading tar component "manifest.json": file does not exist\n',
        e.ImageInvalid,
        "docker-archive:x.tar has no manifest.json",
        "oci-archive:FILE",
        subject="docker-archive:x.tar",
    ),
    # --- signatures
    Sample(
        "signature-none",
        "FATAL:   Failed to verify container: integrity: signature not found for object group 1\n",
        e.SignatureError,
        "a.sif is not signed",
        "image sign",
    ),
    Sample(
        "signature-broken",
        "Error encountered during signature verification: data object integrity compromised: 4\n"
        "FATAL:   Failed to verify container: integrity: data object integrity compromised: 4\n",
        e.SignatureError,
        "has been changed",
        "fetch it again",
    ),
    Sample(
        "signature-broken",
        "FATAL:   Failed to verify container: integrity: object 6: object not signed\n",
        e.SignatureError,
        "something was added to it",
    ),
    Sample(
        "signature-unknown-key",
        "FATAL:   Failed to verify container: integrity: signature object 5 not valid: openpgp: signature made by unknown entity\n",
        e.SignatureError,
        "a key that this machine does not know",
        "apptainer key import",
    ),
    Sample(
        "signing-no-key",
        "INFO:    Signing image with PGP key material\nFATAL:   Failed to sign container: keyring is empty\n",
        e.SignatureError,
        "no key to sign a.sif with",
        "apptainer key newpair",
    ),
    Sample(
        "signing-no-key",
        "FATAL:   Failed to sign container: index out of range\n",
        e.SignatureError,
        "no key to sign a.sif with",
    ),
    Sample(
        "signing-passphrase",
        "FATAL:   Failed to sign container: openpgp: invalid data: private key checksum failure\n",
        e.SignatureError,
        "passphrase is wrong",
    ),
    Sample(
        "registry-refused",
        "FATAL:   While making image from oci registry: error fetching image to cache: failed to get checksum for "
        'docker://localhost:1/x: pinging container registry localhost:1: Get "https://localhost:1/v2/": dial tcp 127.0.0.1:1: '
        "connect: connection refused\n",
        e.RegistryError,
        "127.0.0.1:1: connection refused",
        "https_proxy",
    ),
    Sample(
        "registry-unknown-host",
        "FATAL:   Unable to handle docker://nosuchhost.invalid/x uri: failed to get checksum for docker://nosuchhost.invalid/x: "
        'pinging container registry nosuchhost.invalid: Get "https://nosuchhost.invalid/v2/": dial tcp: lookup nosuchhost.invalid '
        "on 192.0.2.53:53: no such host\n",
        e.RegistryError,
        "nosuchhost.invalid is not known here: no such host",
    ),
    Sample(
        "registry-library",
        "FATAL:   Unable to get library client configuration: no default remote with library client in use (see "
        "https://apptainer.org/docs/user/latest/endpoint.html#no-default-remote)\n",
        e.RegistryError,
        "library://",
        "docker://",
    ),
    Sample(
        "registry-reference",
        "FATAL:   While performing build: conveyor failed to get: could not parse reference: localhost:1/X\n",
        e.RegistryError,
        "no name that a registry could have",
        "docker://HOST/NAME:TAG",
    ),
    Sample(
        "pull-exists",
        'FATAL:   Image file already exists: "x.sif" - will not overwrite\n',
        e.RegistryError,
        "x.sif exists already",
        "--force",
    ),
    # --- builds
    Sample(
        "build-section",
        "INFO:    Running post scriptlet\n+ pip install nosuch\nERROR: No matching distribution found for nosuch\n"
        "FATAL:   While performing build: while running engine: while running %post section: exit status 7\n",
        e.BuildError,
        "a script in its definition file",
        title="build b.sif",
        subject="b.def",
    ),
    Sample(
        "build-section",
        "FATAL:   While performing build: failed to execute %test script: exit status 3\n",
        e.BuildError,
        "a script in its definition file",
    ),
    Sample(
        "build-sections",
        "FATAL:   Unable to build from x.def: while parsing definition: x.def: invalid section(s) specified: pst\n",
        e.BuildError,
        "pst",
    ),
    Sample(
        "build-source",
        "FATAL:   Unable to create build: unable to get conveyorpacker: invalid build source nosuch\n",
        e.BuildError,
        "nosuch",
        "Bootstrap: docker",
    ),
    Sample(
        "build-header",
        "FATAL:   Unable to create build: unable to get conveyorpacker: no bootstrap specification found\n",
        e.BuildError,
        "Bootstrap:",
    ),
    Sample(
        "build-header",
        "FATAL:   Unable to build from x.def: while parsing definition: x.def: multiple stages detected, all must have headers\n",
        e.BuildError,
        "Bootstrap:",
    ),
    Sample(
        "build-variable",
        "FATAL:   Unable to build from x.def: build var IMG is not defined through either --build-arg (--build-arg-file) or "
        "'arguments' section\n",
        e.BuildError,
        "IMG",
        "--build-arg IMG=VALUE",
    ),
    Sample("build-unused", "FATAL:   unused build args: ZZ\n", e.BuildError, "ZZ"),
    Sample(
        "build-exists",
        "FATAL:   While checking build target: build target 'ex.sif' already exists. Use --force if you want to overwrite it\n",
        e.BuildError,
        "ex.sif exists already",
        "--force",
    ),
    Sample(
        "build-definition",
        "FATAL:   Unable to build from /nosuch.def: unable to open file /nosuch.def: open /nosuch.def: no such file or directory\n",
        e.BuildError,
        "/nosuch.def cannot be read",
    ),
    Sample(
        "build-target-folder",
        "FATAL:   While performing build: while creating SIF: while creating container: open /nosuchdir/x.sif: "
        "no such file or directory\n",
        e.BuildError,
        "/nosuchdir/x.sif",
        "mkdir -p",
    ),
    Sample(
        "flag",
        'Error for command "exec": unknown flag: --nosuchflag\n',
        e.CommandError,
        "--nosuchflag",
        "extra_flags",
        returncode=1,
    ),
    # --- programs
    Sample(
        "overlay-full",
        "dd: closing output file '/data/big': No space left on device\n",
        e.OverlayFull,
        "work.img is full",
        "overlay grow work.img +1G",
        argv=OVERLAY,
        returncode=1,
    ),
    Sample(
        "overlay-full-start",
        "INFO:    /usr/bin not writable in container\nrm: cannot remove 'x'\n",
        e.OverlayFull,
        "/usr/bin could not be written",
        "overlay grow work.img",
        argv=OVERLAY,
        returncode=1,
    ),
    Sample(
        "program-disk-full",
        "OSError: [Errno 28] No space left on device: '/home/u/.ipython/history.sqlite'\n",
        e.DiskFull,
        "run python in a.sif",
        "df -h",
        returncode=1,
    ),
    Sample(
        "overlay-read-only",
        "WARNING: Overlay image /d/w.img is not writable, proceeding with read-only\n"
        "touch: cannot touch '/usr/y': Read-only file system\n",
        e.OverlayReadOnly,
        "/d/w.img cannot be written",
        "chmod u+w /d/w.img",
        returncode=1,
    ),
    Sample(
        "read-only",
        "/usr/bin/touch: cannot touch '/usr/x': Read-only file system\n",
        e.ReadOnlyFilesystem,
        "a.sif, which is read-only",
        "--overlay FILE",
        returncode=1,
    ),
    Sample(
        "overlay-unchecked",
        "INFO:    Warning: Mounting unchecked fs, running e2fsck is recommended.\nOSError: [Errno 5] Input/output error\n",
        e.OverlayUnclean,
        "work.img was not closed properly",
        "overlay check work.img",
        argv=OVERLAY,
        returncode=1,
    ),
    Sample(
        "squashfuse-missing",
        "INFO:    squashfuse not found, will not be able to mount SIF or other squashfs files\n"
        "INFO:    Converting SIF file to temporary sandbox...\n",
        e.FuseHelperMissing,
        "squashfuse is not installed",
        "sudo apt-get install squashfuse",
        returncode=1,
    ),
)
# Classes that come from other places than the engine's text, and where.
RAISED_ELSEWHERE = {
    e.EngineNotFound: "locate.get_engine",
    e.EngineTooOld: "locate, doctor",
    e.EngineInstallError: "install",
    e.EngineOutputError: "the parsers beside the commands",
    e.CommandTimeout: "runner",
    e.ImageMismatch: "images.digest",
    e.OverlayImageMismatch: "overlays.ready",
    e.ImageBusy: "kernels.usage",
    e.ServiceEnded: "magics.services",
    e.ProcessNotOrphaned: "gpu.orphans",
    e.ImageMismatch: "images.digest",
}


def run_of(sample: Sample) -> Completed:
    return Completed(sample.argv, sample.returncode, "", sample.text)


@pytest.mark.parametrize("sample", SAMPLES, ids=[f"{s.rule}-{i}" for i, s in enumerate(SAMPLES)])
def test_engine_text_becomes_its_error(sample: Sample) -> None:
    error = diagnose(run_of(sample), title=sample.title, subject=sample.subject, shown="apptainer …")
    assert type(error) is sample.error
    assert sample.says in error.message
    assert sample.advises in (error.hint or "")
    assert error.returncode == sample.returncode
    assert error.command == "apptainer …"
    assert "{" not in str(error)


@pytest.mark.parametrize("sample", SAMPLES, ids=[f"{s.rule}-{i}" for i, s in enumerate(SAMPLES)])
def test_sample_is_matched_by_the_row_that_it_was_recorded_for(sample: Sample) -> None:
    rule = find_rule(run_of(sample))
    assert rule is not None
    assert rule.name == sample.rule


def test_every_row_has_a_sample_and_a_name_of_its_own() -> None:
    names = [rule.name for rule in RULES]
    assert len(names) == len(set(names))
    assert set(names) == {sample.rule for sample in SAMPLES}


def test_every_row_gives_advice() -> None:
    assert [rule.name for rule in RULES if rule.hint is None and rule.error.default_hint is None] == []


def test_every_engine_and_command_error_has_a_row_or_another_source() -> None:
    produced = {rule.error for rule in RULES} | {e.EngineError, e.CommandError, e.BuildError, e.RegistryError}
    wanted = {*e.iter_error_classes(e.EngineError), *e.iter_error_classes(e.CommandError)}
    assert wanted - produced == set(RAISED_ELSEWHERE)


def test_noise_is_neither_the_cause_nor_in_the_tail() -> None:
    text = NOISE + CLEANUP + "FATAL:   container creation failed: something new\n" + LAST
    error = diagnose(Completed((), 255, "", text), title="start instance jpa-1")
    assert type(error) is e.CommandError
    assert error.message == "could not start instance jpa-1: container creation failed: something new"
    assert error.log_tail == ("FATAL:   container creation failed: something new",)


@pytest.mark.parametrize(
    ("title", "text", "expected"),
    [
        ("run python in a.sif", "FATAL:   something new\n", e.CommandError),
        ("build a.sif", "FATAL:   something new\n", e.BuildError),
        ("get the image", "FATAL:   While performing build: something new\n", e.BuildError),
        ("pull a.sif", "FATAL:   something new\n", e.RegistryError),
        ("get the image", "FATAL:   While pulling image from oci registry: something new\n", e.RegistryError),
    ],
    ids=["exec", "build by title", "build by text", "pull by title", "pull by text"],
)
def test_unknown_text_falls_back_by_what_was_tried(title: str, text: str, expected: type[e.CommandError]) -> None:
    error = diagnose(Completed((), 255, "", text), title=title)
    assert type(error) is expected
    assert "something new" in error.message


def test_first_error_line_is_the_message() -> None:
    text = "ERROR:   the cause\nFATAL:   what came of it\n"
    assert diagnose(Completed((), 255, "", text), title="x").message == "could not x: the cause"


def test_messages_of_programs_are_not_taken_for_the_engines() -> None:
    text = "ERROR: pip says: dial tcp 1.2.3.4:443: connection refused\nFATAL: image format not recognized\n"
    error = diagnose(Completed((), 1, "", text), title="run pip in a.sif")
    assert type(error) is e.CommandError
    assert error.message == "could not run pip in a.sif: exit status 1"


@pytest.mark.parametrize(("returncode", "words"), [(-9, "ended by SIGKILL"), (-99, "signal 99"), (3, "exit status 3")])
def test_silent_failure_tells_the_status(returncode: int, words: str) -> None:
    assert words in diagnose(Completed((), returncode, "", ""), title="x").message


def test_text_on_standard_output_counts_too() -> None:
    completed = Completed((), 1, coloured("Failed to create user namespace: not allowed to create user namespace"), "")
    assert isinstance(diagnose(completed, title="x"), e.UserNamespacesUnavailable)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("INFO:    squashfuse not found, will not be able to mount SIF or other squashfs files\n", e.FuseHelperMissing),
        ("WARNING: Overlay image /d/w.img is not writable, proceeding with read-only\n", e.OverlayReadOnly),
        ("INFO:    /usr/bin not writable in container\n", e.OverlayFull),
        ("INFO:    Warning: Mounting unchecked fs, running e2fsck is recommended.\n", e.OverlayUnclean),
    ],
    ids=["squashfuse", "read-only overlay", "full overlay", "unclean overlay"],
)
def test_run_that_succeeded_can_have_warnings(text: str, expected: type[e.ApptainerError]) -> None:
    (warning,) = find_warnings(Completed((), 0, "", NOISE + text), subject="a.sif")
    assert type(warning) is expected
    assert warning.hint


def test_clean_run_has_no_warnings() -> None:
    assert find_warnings(Completed((), 0, "hello\n", NOISE)) == ()


def test_megabytes_of_output_are_diagnosed_quickly() -> None:
    text = "No space left on device\n" * 200_000 + "FATAL:   something new\n"
    started = time.monotonic()
    diagnose(Completed((), 1, "", text), title="build a.sif")
    assert time.monotonic() - started < 2
