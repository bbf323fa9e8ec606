"""How this machine treats processes: cgroups, hidepid, and who takes dead ones away."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from ...places import Places, make_private_dir, write_private_file
from ..locate import EngineInfo
from .probe import ROOT, Probe, read_text

REAP_TIMEOUT_S = 3.0
_LIMITS = ("cpu", "memory", "pids")
_DELEGATE = (
    "sudo mkdir -p /etc/systemd/system/user@.service.d && "
    "printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' | "
    "sudo tee /etc/systemd/system/user@.service.d/delegate.conf && sudo systemctl daemon-reload"
)


def probe_cgroups(environ: Mapping[str, str], *, root: Path = ROOT, uid: int | None = None) -> Probe:
    """Check whether the engine's limits (`--memory`, `--cpus`) and statistics can work. Kernels are watched without."""
    name = "cgroups"
    uid = os.geteuid() if uid is None else uid
    without = "`resources` of kernels are kept by watching them, and the engine has no statistics"
    if not (root / "run/systemd/system").is_dir():
        return Probe(name, "warn", f"systemd does not run this machine: {without}", None)
    if find_mount_type(root, "/sys/fs/cgroup") != "cgroup2":
        fix = "sudo grubby --update-kernel=ALL --args=systemd.unified_cgroup_hierarchy=1  # and reboot"
        return Probe(name, "warn", f"cgroups are not version 2 alone: {without}", fix)
    if uid == 0:
        return Probe(name, "ok", "cgroups version 2 under systemd")
    if not environ.get("XDG_RUNTIME_DIR") or not _has_bus(environ):
        fix = f"sudo loginctl enable-linger {uid}; export XDG_RUNTIME_DIR=/run/user/{uid} DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus"
        return Probe(name, "warn", f"the server has no systemd user session (XDG_RUNTIME_DIR, D-Bus): {without}", fix)
    controllers = read_text(
        root / f"sys/fs/cgroup/user.slice/user-{uid}.slice/user@{uid}.service/cgroup.controllers"
    ).split()
    missing = [controller for controller in _LIMITS if controller not in controllers]
    if missing:
        return Probe(name, "warn", f"systemd does not let users set limits on {', '.join(missing)}", _DELEGATE)
    return Probe(name, "ok", "cgroups version 2, delegated to this user")


def _has_bus(environ: Mapping[str, str]) -> bool:
    return bool(environ.get("DBUS_SESSION_BUS_ADDRESS")) or Path(environ["XDG_RUNTIME_DIR"], "bus").exists()


def find_mount_type(root: Path, mountpoint: str) -> str:
    """Return the type of the file system mounted exactly there; empty for none."""
    found = ""
    for line in read_text(root / "proc/self/mountinfo").splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[4] == mountpoint:
            found = rest.split()[0]
    return found


def probe_hidepid(engine: EngineInfo | None, *, root: Path = ROOT) -> Probe:
    """Check that /proc shows processes: a setuid engine refuses to start under hidepid."""
    name = "/proc"
    hidden = _find_hidepid(root)
    if not hidden:
        return Probe(name, "ok", "shows all processes")
    if engine and engine.setuid:
        detail = f"mounted with {hidden}: the setuid engine refuses that"
        return Probe(name, "fail", detail, "sudo mount -o remount,hidepid=0 /proc")
    return Probe(name, "ok", f"mounted with {hidden}: processes of others are not seen")


def _find_hidepid(root: Path) -> str | None:
    """Return the option of the topmost mount on /proc, where it hides anything."""
    found = None
    for line in read_text(root / "proc/self/mountinfo").splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[4] == "/proc":
            options = f"{fields.split()[5]},{rest.split()[-1]}".split(",")
            hiding = (word for word in options if word.startswith("hidepid=") and word[8:] not in ("0", "off"))
            found = next(hiding, None)
    return found


def probe_reaping(places: Places | None = None, *, timeout_s: float = REAP_TIMEOUT_S) -> Probe:
    """Check that orphans are taken away when they die, by making one. Asked once per boot where `places` is given."""
    key = _describe_init()
    cache = places.probes / "host.json" if places else None
    known = _load(cache).get(key) if cache else None
    took_s = float(known) if isinstance(known, (int, float)) else measure_reaping(timeout_s)
    if cache and known is None:
        _save(cache, {key: took_s})
    if took_s >= timeout_s:
        detail = "PID 1 does not take dead processes away: they pile up, and `apptainer instance stop` needs 10 s"
        return Probe("PID 1", "warn", detail, "docker run --init …  # or: tini -- jupyter lab")
    return Probe("PID 1", "ok", f"takes dead processes away after {took_s:.2f} s")


def measure_reaping(timeout_s: float = REAP_TIMEOUT_S) -> float:
    """Return the seconds that a dead orphan stays in the process table; `timeout_s` where it is still there then."""
    # The shell ends at once; its child, now an orphan, ends when its standard input does.
    script = "exec 3<&0; (read line <&3) >/dev/null 2>&1 & echo $!"
    with subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        orphan = Path("/proc", shell.stdout.readline().strip())
        shell.wait()
        shell.stdin.close()
    started = time.monotonic()
    # The kernel tells nobody but the parent when a zombie goes.
    while orphan.exists() and time.monotonic() - started < timeout_s:
        time.sleep(0.01)
    return min(time.monotonic() - started, timeout_s)


def _describe_init() -> str:
    """The same PID 1: this boot, this PID namespace. By user, since the file is a user's."""
    boot = read_text(Path("/proc/sys/kernel/random/boot_id"))
    return f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}:{os.getuid()}"


def _load(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _save(path: Path, content: Mapping[str, object]) -> None:
    try:
        make_private_dir(path.parent)
        write_private_file(path, json.dumps(content))
    except OSError:
        # It only costs time to ask again.
        return
