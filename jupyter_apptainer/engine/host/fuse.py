"""FUSE: the device, the kernel's age, and the programs that mount images and overlays without privileges."""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from ..locate import EngineInfo
from .probe import Probe

_DEVICE = "/dev/fuse"
_TIMEOUT_S = 5
# Where the engine looks besides PATH (its `binary path` setting).
_SYSTEM_FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class _Helper:
    """A program that the engine starts. names: any of them will do. need: what fails without it."""

    names: tuple[str, ...]
    question: tuple[str, ...]
    need: str
    debian: str
    fedora: str


_HELPERS = (
    _Helper(
        ("squashfuse_ll", "squashfuse"), ("--help",), "every start unpacks the image first", "squashfuse", "squashfuse"
    ),
    _Helper(("fuse2fs",), ("-V",), "no ext3 overlays", "fuse2fs", "fuse2fs"),
    _Helper(("fuse-overlayfs",), ("--version",), "overlays fail or stay empty", "fuse-overlayfs", "fuse-overlayfs"),
    _Helper(("mkfs.ext3",), ("-V",), "no overlay can be created", "e2fsprogs", "e2fsprogs"),
    _Helper(("mksquashfs",), ("-version",), "no image can be built", "squashfs-tools", "squashfs-tools"),
    _Helper(("unsquashfs",), ("-version",), "no image can be unpacked", "squashfs-tools", "squashfs-tools"),
    _Helper(("newuidmap",), (), "--fakeroot only with the fakeroot command", "uidmap", "shadow-utils"),
)


def probe_fuse_device(engine: EngineInfo | None, device: str = _DEVICE) -> Probe:
    """Check that /dev/fuse can be opened by us, and by everybody else."""
    name = "FUSE"
    # A setuid install mounts images with the kernel's own squashfs.
    bad = "warn" if engine and engine.setuid else "fail"
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        fix = "sudo modprobe fuse  # in Docker: docker run --device /dev/fuse …"
        return Probe(name, "warn" if bad == "warn" else "fail", f"{device} does not exist", fix)
    except OSError as error:
        detail = f"{device} cannot be opened: {error.strerror}; only images unpacked to a folder work"
        return Probe(name, "warn" if bad == "warn" else "fail", detail, f"sudo chmod 666 {device}")
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(10, 229):
        fix = f"sudo rm {device}; sudo mknod -m 666 {device} c 10 229"
        return Probe(name, "fail", f"{device} is not the FUSE device", fix)
    if status.st_mode & 0o006 != 0o006:
        mode = stat.S_IMODE(status.st_mode)
        detail = f"{device} has mode {mode:04o}: we can open it, other users cannot"
        return Probe(name, "warn", detail, f"sudo chmod 666 {device}")
    return Probe(name, "ok", f"{device} can be opened by everybody")


def probe_kernel_version(release: str | None = None) -> Probe:
    """Check that Linux lets ordinary users mount: FUSE from 4.18 on, overlays of folders from 5.11 on."""
    name = "Linux"
    text = release or platform.release()
    match = re.match(r"(\d+)\.(\d+)", text)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    if version < (4, 18):
        return Probe(name, "fail", f"{text} has no FUSE mounts for ordinary users; 4.18 has", "use a newer kernel")
    if version < (5, 11):
        return Probe(
            name, "ok", f"{text}; overlays go through fuse-overlayfs, from 5.11 on the kernel does them faster"
        )
    return Probe(name, "ok", f"{text}: FUSE and overlays without privileges")


def probe_helpers(engine: EngineInfo | None, environ: Mapping[str, str]) -> Probe:
    """Check that the programs which the engine starts are there, and tell their versions."""
    path = _build_search_path(engine, environ)
    found = {helper: _find_program(helper, path) for helper in _HELPERS}
    versions = _ask_versions({helper: program for helper, program in found.items() if program})
    missing = [helper for helper, program in found.items() if program is None]
    if engine and engine.setuid:
        # The setuid starter mounts by itself.
        missing = [helper for helper in missing if "fuse" not in helper.names[0]]
    detail = ", ".join(versions)
    if missing:
        detail += "; missing: " + ", ".join(f"{helper.names[0]} ({helper.need})" for helper in missing)
        return Probe("programs", "warn", detail.lstrip("; "), _build_install_command(missing))
    unprivileged = _find_unprivileged(found)
    if unprivileged:
        return Probe(
            "programs",
            "warn",
            f"{unprivileged} is neither setuid root nor has it the capability",
            f"sudo chmod u+s {unprivileged}",
        )
    return Probe("programs", "ok", detail)


def _build_search_path(engine: EngineInfo | None, environ: Mapping[str, str]) -> str:
    own = [os.path.join(engine.libexec, engine.dot_folder.lstrip("."), "bin")] if engine else []
    return ":".join([*own, environ.get("PATH", ""), _SYSTEM_FOLDERS])


def _find_program(helper: _Helper, path: str) -> str | None:
    return next((program for name in helper.names if (program := shutil.which(name, path=path))), None)


def _ask_versions(programs: Mapping[_Helper, str]) -> list[str]:
    """Ask all at once; each takes a few milliseconds, and answers on either stream."""
    running = {
        helper: subprocess.Popen(
            [program, *helper.question],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for helper, program in programs.items()
        if helper.question
    }
    shown = []
    for helper, program in programs.items():
        text = ""
        if helper in running:
            try:
                text, _ = running[helper].communicate(timeout=_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                running[helper].kill()
                running[helper].communicate()
        name = os.path.basename(program)
        match = re.search(rf"^(?:{re.escape(name)}|squashfuse|mke2fs):? (?:version:? )?([\d.]+)", text, re.MULTILINE)
        shown.append(f"{name} {match[1]}" if match else name)
    return shown


def _find_unprivileged(found: Mapping[_Helper, str | None]) -> str | None:
    """Return newuidmap where it could not map ids: it must be setuid root or carry a file capability."""
    program = next((path for helper, path in found.items() if helper.names[0] == "newuidmap"), None)
    if program is None or os.geteuid() == 0:
        return None
    is_setuid = bool(os.stat(program).st_mode & stat.S_ISUID)
    return None if is_setuid or "security.capability" in os.listxattr(program) else program


def _build_install_command(missing: list[_Helper]) -> str:
    if shutil.which("apt-get", path=_SYSTEM_FOLDERS):
        return "sudo apt-get install " + " ".join(dict.fromkeys(helper.debian for helper in missing))
    return "sudo dnf install " + " ".join(dict.fromkeys(helper.fedora for helper in missing))
