"""The disks that images, overlays, caches and temporary files lie on: kind of file system, free space, locks."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...places import Places
from ..locate import EngineInfo
from .probe import ROOT, Probe, Status, read_text

MIB = 1 << 20
_NETWORK = frozenset(
    [
        "nfs",
        "nfs4",
        "lustre",
        "gpfs",
        "beegfs",
        "panfs",
        "wekafs",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "ceph",
        "fuse.ceph",
        "fuse.sshfs",
        "fuse.glusterfs",
        "orangefs",
        "9p",
    ]
)


@dataclass(frozen=True)
class Disk:
    """The file system under a folder. free_bytes: what this user may still write."""

    path: Path
    kind: str
    options: frozenset[str]
    free_bytes: int

    @property
    def is_network(self) -> bool:
        """Shared between machines, with the locks and the speed that this brings."""
        return self.kind in _NETWORK

    def describe(self) -> str:
        """For people."""
        return f"{self.path} on {self.kind}, {self.free_bytes / (1 << 30):.1f} GiB free"


@dataclass(frozen=True)
class Role:
    """A use of a folder, and what it needs. variable: the setting that moves it."""

    name: str
    path: Path
    variable: str
    wanted_mib: int
    must_be_local: bool = False
    must_lock: bool = False


def build_roles(
    engine: EngineInfo | None, places: Places, environ: Mapping[str, str], image: str | None = None
) -> list[Role]:
    """Return the folders in use, each with its demands; nothing is looked at."""
    prefix = "SINGULARITY" if engine and engine.flavour != "apptainer" else "APPTAINER"
    home = Path(environ.get("HOME") or Path.home())
    own = home / (engine.dot_folder if engine else ".apptainer")
    cache = Path(environ.get(f"{prefix}_CACHEDIR") or own)
    temporary = Path(environ.get(f"{prefix}_TMPDIR") or environ.get("TMPDIR") or "/tmp")
    roles = [
        Role("temporary files of builds", temporary, f"{prefix}_TMPDIR", 2048, must_be_local=True),
        Role("temporary files of kernels", places.scratch, "TMPDIR", 512, must_be_local=True),
        Role("images of ours", places.images, "JUPYTER_APPTAINER_HOME", 1024, must_lock=True),
        Role("cache of pulls", cache, f"{prefix}_CACHEDIR", 1024),
        Role("engine's records", Path(environ.get(f"{prefix}_CONFIGDIR") or own), f"{prefix}_CONFIGDIR", 10),
    ]
    return roles + ([Role("the image", Path(image).resolve().parent, "", 0)] if image else [])


def probe_disks(roles: list[Role]) -> list[Probe]:
    """Check each role's folder, or the nearest one above it that exists."""
    return [probe_disk(role) for role in roles]


def probe_disk(role: Role) -> Probe:
    """Check one folder: that it is there and ours to write, the kind of its file system, space, and locks."""
    name = f"disk: {role.name}"
    try:
        disk = load_disk(role.path)
    except OSError as error:
        return Probe(name, "fail", f"{role.path} cannot be looked at: {error.strerror}", _build_move(role))
    if role.variable and not os.access(disk.path, os.W_OK | os.X_OK):
        return Probe(name, "fail", f"{disk.path} cannot be written by this user", _build_move(role))
    free_mib = disk.free_bytes // MIB
    if free_mib < role.wanted_mib:
        status: Status = "fail" if free_mib < role.wanted_mib // 10 else "warn"
        return Probe(name, status, f"{disk.describe()}; {role.wanted_mib} MiB are wanted", _build_move(role))
    if role.must_be_local and disk.is_network:
        return Probe(name, "warn", f"{disk.describe()}: temporary files belong on a local disk", _build_move(role))
    if role.must_be_local and "noexec" in disk.options:
        return Probe(
            name, "warn", f"{disk.describe()}, mounted noexec: builds that run programs there fail", _build_move(role)
        )
    if role.must_lock and not can_lock(disk.path):
        return Probe(
            name,
            "warn",
            f"{disk.describe()}: it knows no locks, so an overlay must not be used twice at a time",
            _build_move(role),
        )
    note = "; shared between machines: the first start reads over the network" if disk.is_network else ""
    return Probe(name, "ok", disk.describe() + note)


def _build_move(role: Role) -> str | None:
    if not role.variable:
        return None
    return f"export {role.variable}=/var/tmp/$USER  # any folder of yours on a larger local disk; now {shlex.quote(str(role.path))}"


def load_disk(path: Path, *, root: Path = ROOT) -> Disk:
    """Find the file system of `path`, or of the nearest folder above it that exists. Raises OSError where it can't be asked."""
    folder = path.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    space = os.statvfs(folder)
    kind, options = find_mount(folder.resolve(), read_text(root / "proc/self/mountinfo"))
    return Disk(folder, kind, options, space.f_bavail * space.f_frsize)


def find_mount(path: Path, mountinfo: str) -> tuple[str, frozenset[str]]:
    """Return type and options of the mount that `path` is on, from the text of proc_pid_mountinfo(5)."""
    best, kind, options = -1, "unknown", frozenset[str]()
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        mountpoint = Path(re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), fields.split()[4]))
        # Of mounts on the same place the last is on top.
        if path.is_relative_to(mountpoint) and len(mountpoint.parts) >= best:
            best, kind = len(mountpoint.parts), rest.split()[0]
            options = frozenset(fields.split()[5].split(","))
    return kind, options


def can_lock(folder: Path) -> bool:
    """Say whether files in `folder` can be locked as the engine locks overlays (fcntl), by doing it."""
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
    return True
