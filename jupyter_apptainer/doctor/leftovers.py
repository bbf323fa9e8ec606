"""What ended kernels and builds left on this machine. It is named, never removed: some of it may be somebody's."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..engine.host import Probe
from ..engine.locate import EngineInfo
from ..instances.janitor import find_leftovers
from ..instances.model import FUSE_HELPERS
from ..instances.process import ProcessStat, iter_stats, read_command_line, read_namespace
from ..instances.start import find_engine_folders
from ..places import Places

# The engine's own folders for unpacked images and for builds; an hour old, so that no build of now is meant.
_TEMPORARY = ("rootfs-*", "build-temp-*", "bundle-temp-*")
_OLD_S = 3600.0


def probe_own_instances(places: Places) -> Probe:
    """Look for instances of ours whose owner is gone."""
    name = "leftovers: our instances"
    names = [leftover.entry.name for leftover in find_leftovers(places)]
    if not names:
        return Probe(name, "ok", "none")
    return Probe(name, "warn", f"nobody will end these any more: {', '.join(names)}", "jupyter apptainer gc")


def probe_orphans() -> Probe:
    """Look for FUSE helpers whose engine was killed: they keep their overlay locked, and the image busy."""
    name = "leftovers: FUSE programs"
    orphans = find_orphans()
    if not orphans:
        return Probe(name, "ok", "none")
    shown = ", ".join(f"{stat.comm} ({stat.pid})" for stat in orphans)
    # In this order an ext3 overlay is written back and left clean.
    fix = "kill " + " ".join(str(stat.pid) for stat in orphans)
    return Probe(name, "warn", f"their container is gone, and they hold its image and overlay: {shown}", fix)


def find_orphans() -> list[ProcessStat]:
    """Return this user's FUSE helpers in whose mount namespace nothing else runs, in the order in which they should end."""
    groups: defaultdict[int, list[ProcessStat]] = defaultdict(list)
    for stat in iter_stats():
        namespace = read_namespace(stat.pid, "mnt") if stat.state not in "ZX" else None
        if namespace is not None:
            groups[namespace].append(stat)
    orphans = [
        stat
        for group in groups.values()
        if all(stat.comm in FUSE_HELPERS for stat in group)
        for stat in group
        if _is_own_helper(stat.pid)
    ]
    return sorted(orphans, key=lambda stat: (FUSE_HELPERS.index(stat.comm), stat.pid))


def _is_own_helper(pid: int) -> bool:
    """The engine mounts below mnt/session; other users of FUSE have namespaces of their own too."""
    try:
        return os.stat(f"/proc/{pid}").st_uid == os.geteuid() and "/mnt/session/" in read_command_line(pid)
    except OSError:
        return False


def probe_records(engine: EngineInfo, environ: Mapping[str, str], hostname: str) -> Probe:
    """Look for the engine's files about instances that no longer run on this host."""
    name = "leftovers: records"
    folder = Path(find_engine_folders(engine, environ, hostname).record_dir)
    stale = sorted(path.stem for path in folder.glob("*/*.json") if not _is_running(path))
    if not stale:
        return Probe(name, "ok", "none")
    # Listing them makes the engine look, and delete those that are gone.
    return Probe(
        name,
        "warn",
        f"the engine's files in {folder} name instances that are gone: {', '.join(stale)}",
        f"{shlex.quote(engine.path)} instance list",
    )


def _is_running(path: Path) -> bool:
    try:
        pid = int(json.loads(path.read_text())["ppid"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return "instance" in read_command_line(pid)


def probe_temporary_folders(engine: EngineInfo, environ: Mapping[str, str]) -> Probe:
    """Look for unpacked images and interrupted builds that nothing uses."""
    name = "leftovers: temporary folders"
    found = sorted(str(path) for path in _iter_old_folders(engine, environ))
    if not found:
        return Probe(name, "ok", "none")
    detail = f"{len(found)} of interrupted builds and starts, more than an hour old: {', '.join(found)}"
    return Probe(name, "warn", detail, f"chmod -R u+w {shlex.join(found)}; rm -rf {shlex.join(found)}")


def _iter_old_folders(engine: EngineInfo, environ: Mapping[str, str]) -> Iterator[Path]:
    prefix = "APPTAINER" if engine.flavour == "apptainer" else "SINGULARITY"
    chosen = (environ.get(f"{prefix}_TMPDIR"), environ.get("TMPDIR"), "/tmp")
    mounted = _read_mounts()
    for folder in dict.fromkeys(Path(folder) for folder in chosen if folder):
        for pattern in _TEMPORARY:
            for path in folder.glob(pattern):
                status = path.lstat()
                is_old = time.time() - status.st_mtime > _OLD_S
                if path.is_dir() and status.st_uid == os.geteuid() and is_old and str(path) not in mounted:
                    yield path


def _read_mounts() -> str:
    """Return the mount tables of all of this user's processes: an unpacked image is in use while one is on it."""
    tables = {}
    for stat in iter_stats():
        namespace = read_namespace(stat.pid, "mnt")
        if namespace is not None and namespace not in tables:
            try:
                tables[namespace] = Path(f"/proc/{stat.pid}/mountinfo").read_text(errors="replace")
            except OSError:
                continue
    return "\n".join(tables.values())
