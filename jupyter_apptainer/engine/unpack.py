"""An engine unpacked from the distribution's newest suite into a folder of its own, for any user.

Its programs are newer than the host's C library, so they bring theirs. The FUSE helpers, squashfs-tools, e2fsprogs and
stdbuf come from the same suite, because fuse2fs is preloaded with a library of the engine (offsetpreload.so) for overlays
inside a SIF. Only fakeroot comes from the host's own suite: it is preloaded into programs inside containers, whose C
library is often older.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from .apt import Mirror, PrivateApt, build_sources, find_mirror
from .linking import find_loader, is_elf, link_programs
from .step import OnProgress, StepError, find_program, run_step

ENGINE_PACKAGE = "apptainer"
# What the engine starts beside itself. uidmap is not among them: newuidmap must be setuid root, and only root can make it
# so; without it the engine maps one user, which is enough to run images and to build most.
HELPER_PACKAGES = ("squashfuse", "fuse2fs", "fuse-overlayfs", "squashfs-tools", "e2fsprogs", "debootstrap", "wget")
# Single files of packages whose other programs the host has in any case. The engine starts fuse2fs through stdbuf, which
# looks for its library in its own folder first.
PICKED_FILES = {"coreutils": ("usr/bin/stdbuf", "usr/libexec/coreutils/libstdbuf.so")}
TOOL_PACKAGE = "patchelf"
FAKEROOT_PACKAGES = ("fakeroot", "libfakeroot")


def unpack_engine(prefix: Path, scratch: Path, on_progress: OnProgress) -> str:
    """Make an engine in the empty folder `prefix`, which cannot be moved afterwards; return the package's version.

    scratch: an empty folder for lists and packages. Raises StepError with the reason where it cannot be done here.
    """
    for program in ("apt-get", "dpkg-deb"):
        if not find_program(program):
            raise StepError(f"this host has no {program}")
    if any(char in str(prefix) for char in ":;$\n"):
        raise StepError(f"{prefix}: the loader of programs cannot search a path with such characters")
    mirror = find_mirror()
    on_progress(f"Reading the package lists of {mirror.distribution} {mirror.newest_suite}")
    apt = PrivateApt(scratch / "apt", build_sources(mirror, (mirror.newest_suite, mirror.suite)))
    apt.update()
    version = _download(apt, mirror, scratch, on_progress)
    on_progress("Unpacking")
    _copy_engine(scratch / "helpers", prefix)
    _copy_helpers(scratch / "helpers", prefix)
    _copy_picked(scratch / "system", prefix)
    _copy_debootstrap(scratch / "helpers", prefix)
    _copy_fakeroot(scratch / "fakeroot", prefix)
    on_progress("Giving the programs their own libraries")
    programs = [path for path in sorted(prefix.glob("**/bin/*")) if is_elf(path) and not _is_for_containers(path)]
    link_programs(
        [path for path in programs if path.suffix != ".so"],
        sorted(prefix.glob("libexec/apptainer/**/*.so")),
        find_loader(scratch / "system"),
        scratch / "system/usr/bin/patchelf",
        prefix / "lib/runtime",
    )
    return version


def _download(apt: PrivateApt, mirror: Mirror, scratch: Path, on_progress: OnProgress) -> str:
    own = {ENGINE_PACKAGE, *HELPER_PACKAGES}
    packages = apt.resolve((*sorted(own), *PICKED_FILES, TOOL_PACKAGE))
    # Dependencies that are not libraries configure or serve a whole system; a program needs only the libraries.
    needed = {TOOL_PACKAGE, *PICKED_FILES}
    other = [package for package in packages if package.name in needed or package.section in ("libs", "oldlibs")]
    helpers = [package for package in packages if package.name in own]
    size = sum(package.size for package in (*helpers, *other))
    on_progress(f"Downloading {len(helpers) + len(other)} packages, {size / 1e6:.0f} MB")
    for chosen, folder in ((helpers, "helpers"), (other, "system")):
        _extract(apt.download([f"{package.name}={package.version}" for package in chosen]), scratch / folder)
    _extract(apt.download([f"{name}/{mirror.suite}" for name in FAKEROOT_PACKAGES]), scratch / "fakeroot")
    return next(package.version for package in helpers if package.name == ENGINE_PACKAGE)


def _extract(archives: Iterable[Path], target: Path) -> None:
    for archive in archives:
        run_step(("dpkg-deb", "-x", str(archive), str(target)), f"unpack {archive.name}")


def _copy_engine(source: Path, prefix: Path) -> None:
    home = next(iter([*source.glob("usr/lib/*/apptainer"), *source.glob("usr/libexec/apptainer")]), None)
    if home is None or not (home / "bin/starter").is_file():
        raise StepError("the engine's package has no starter program where it was expected")
    (prefix / "bin").mkdir()
    shutil.copy2(source / "usr/bin/apptainer", prefix / "bin/apptainer")
    shutil.copytree(source / "etc/apptainer", prefix / "etc/apptainer")
    shutil.copytree(home, prefix / "libexec/apptainer")
    # The engine computes its prefix from its own path, and expects the starter where the package has it.
    packaged = prefix / home.relative_to(source / "usr")
    if not packaged.exists():
        packaged.parent.mkdir(parents=True)
        packaged.symlink_to(Path(*[".."] * len(packaged.parent.relative_to(prefix).parts)) / "libexec/apptainer")
    (prefix / "var/lib/apptainer/mnt/session").mkdir(parents=True)


def _copy_helpers(source: Path, prefix: Path) -> None:
    # The engine searches this folder before PATH.
    target = prefix / "libexec/apptainer/bin"
    for folder in ("usr/bin", "usr/sbin", "bin", "sbin"):
        for path in sorted((source / folder).glob("*")):
            # Other names of one program (mkfs.ext3 is mke2fs) become copies: what it does depends on the name.
            if path.resolve().name != "apptainer" and is_elf(path) and not (target / path.name).exists():
                shutil.copy2(path, target / path.name)


def _copy_picked(source: Path, prefix: Path) -> None:
    for names in PICKED_FILES.values():
        for name in names:
            if (source / name).exists():
                shutil.copy2(source / name, prefix / "libexec/apptainer/bin" / Path(name).name)


def _copy_debootstrap(source: Path, prefix: Path) -> None:
    share = prefix / "share/debootstrap"
    shutil.copytree(source / "usr/share/debootstrap", share)
    shutil.copy2(source / "usr/sbin/debootstrap", share / "debootstrap")
    (share / "bin").mkdir()
    _write_program(share / "bin/arch-test", "#!/bin/sh\nexit 0\n")
    text = files(__package__).joinpath("data/debootstrap.sh").read_text(encoding="utf-8")
    _write_program(prefix / "libexec/apptainer/bin/debootstrap", text.replace("@PREFIX@", shlex.quote(str(prefix))))


def _copy_fakeroot(source: Path, prefix: Path) -> None:
    library = next(source.glob("usr/lib/*/libfakeroot/libfakeroot-sysv.so"), None)
    if library is None:
        raise StepError("the package of fakeroot has no library where it was expected")
    shutil.copytree(library.parent, prefix / "lib/libfakeroot")
    helpers = prefix / "libexec/apptainer/bin"
    shutil.copy2(source / "usr/bin/faked-sysv", helpers / "faked-sysv")
    script = (source / "usr/bin/fakeroot-sysv").read_text(encoding="utf-8")
    _write_program(helpers / "fakeroot", relocate_fakeroot(script, prefix))


def relocate_fakeroot(script: str, prefix: Path) -> str:
    """Point the fakeroot script to our copies. Inside a container the engine gives it other places, by options."""
    # The script evaluates FAKED once more, so what is special to a shell is quoted twice.
    faked = shlex.quote(str(prefix / "libexec/apptainer/bin/faked-sysv"))
    places = {"PATHS": shlex.quote(str(prefix / "lib/libfakeroot")), "FAKED": shlex.quote(faked)}
    lines = []
    for line in script.splitlines():
        name, equals, _ = line.partition("=")
        lines.append(f"{name}={places[name]}" if equals and name in places else line)
    return "\n".join(lines) + "\n"


def _is_for_containers(path: Path) -> bool:
    # These run with the C library of the container, or of the host, never with ours.
    return path.name == "faked-sysv"


def _write_program(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
