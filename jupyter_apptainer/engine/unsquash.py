"""Unpack a squashfs into a folder with `unsquashfs`, and find out beforehand how much that will be.

Everything belongs to this user afterwards, as the engine shows the files of an image to who mounts it without root's rights. Only for root
who has all rights, and whose engine shows the owners in the image, are they kept.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .companions import get_companion, stream_companion
from .locate import EngineInfo, run_flags
from .step import StepError, build_step_environment, run_step

_BLOCK = 1 << 16
_PAGE = 4096
_MAX_ERROR_BYTES = 1 << 16
# unsquashfs would take 256 MiB of memory for each of its two queues.
_QUEUES = ("-da", "32", "-fr", "32")
# Mode, owner, size or numbers of a device, date, time, name. A name with a line break goes on in a line that looks different.
_ROW = re.compile(rb"^([-dlbcps])[-rwxsStT]{9} \S+ +(\d+|\d+, *\d+) [-\d]{10} [:\d]{5} (\S.*)$")
# Files that only root can make; the engine mounts its own /dev over those that may be left out.
_DEVICE = re.compile(rb"^create_inode: could not create (?:character|block) device .*because you're not superuser!$")
_TOP = b"squashfs-root/"


@dataclass(frozen=True)
class Contents:
    """What a squashfs will take when it is unpacked. devices: those outside of /dev, which an ordinary user could not make."""

    size_bytes: int
    files: int
    devices: tuple[str, ...]


def measure_contents(engine: EngineInfo, image: str, offset: int) -> Contents:
    """Read the table of files of the squashfs that begins at `offset`. Raises StepError, and FuseHelperMissing without unsquashfs."""
    size = files = 0
    devices: list[str] = []
    argv = ("unsquashfs", "-offset", str(offset), "-lln", image)
    with stream_companion(engine, argv, f"list the files of {image}") as stream:
        for line in stream:
            row = _ROW.match(line.rstrip(b"\n"))
            if row is None:
                continue
            files += 1
            # Folders and links take a block or an inode each.
            length = int(row[2]) if row[1] == b"-" else _PAGE
            size += -(-length // _PAGE) * _PAGE
            name = row[3].removeprefix(_TOP)
            if row[1] in b"bc" and not name.startswith(b"dev/"):
                devices.append(f"/{os.fsdecode(name)}")
    return Contents(size, files, tuple(devices))


def keeps_owners(engine: EngineInfo) -> bool:
    """Say whether the engine shows this process the owners that files have in an image."""
    return os.geteuid() == 0 and not run_flags(engine)


def unpack_squashfs(
    engine: EngineInfo, image: str, offset: int, target: Path, on_count: Callable[[int], object]
) -> None:
    """Unpack into the folder `target`, which does not exist yet, and have it on the disk at the end. on_count: told the number of files.

    Raises StepError where anything could not be written, but for devices, and FuseHelperMissing.
    """
    title = f"unpack {image}"
    program = get_companion(engine, "unsquashfs", title)
    # Extended attributes of an image are out of sight in a container.
    flags = ("-no-progress", "-info", "-no-xattrs", *_QUEUES, "-offset", str(offset), "-dest", str(target))
    _run((*_build_namespace(engine), program, *flags, image), title, on_count)
    # A machine that loses power must not be left with files that are empty behind a mark that says that all are there.
    run_step(("sync", "-f", str(target)), f"write {target} to the disk", timeout_s=3600)


def _build_namespace(engine: EngineInfo) -> tuple[str, ...]:
    """What makes unsquashfs work as for an ordinary user: it asks for its number only."""
    if os.geteuid() != 0 or keeps_owners(engine):
        return ()
    return ("unshare", "--map-user=1", "--map-group=1")


def _run(argv: Sequence[str], title: str, on_count: Callable[[int], object]) -> None:
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                argv,
                env=build_step_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                # It would take permissions away; nobody else comes past the folder above.
                umask=0,
            )
        except OSError as error:
            raise StepError(f"could not {title}: {argv[0]}: {error.strerror}") from error
        with process:
            assert process.stdout is not None
            try:
                _count_lines(process.stdout, on_count)
            except BaseException:
                process.kill()
                raise
        errors.seek(0)
        lines = [line for line in errors.read(_MAX_ERROR_BYTES).splitlines() if line.strip()]
    # Before 4.5 unsquashfs ended with 0 whatever it could not write; since then with 2, for devices too.
    told = [line.decode("utf-8", "replace") for line in lines if not _DEVICE.match(line)]
    if told or process.returncode not in (0, 2) or (process.returncode == 2 and not lines):
        reason = told[-1] if told else f"exit status {process.returncode}"
        raise StepError(f"could not {title}: {reason}", told)


def _count_lines(stream: IO[bytes], on_count: Callable[[int], object]) -> None:
    count = 0
    while block := os.read(stream.fileno(), _BLOCK):
        count += block.count(b"\n")
        on_count(count)
