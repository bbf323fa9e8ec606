"""Programs that come with an engine (e2fsck, resize2fs, debugfs, mksquashfs, …), used without starting the engine itself.

The engine's own copies come first: those of an engine in a folder of the user's are newer than the host's, and often the
only ones.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO

from ..errors import FuseHelperMissing
from .command import Completed
from .locate import EngineInfo
from .step import StepError, build_step_environment, run_step

_MAX_ERROR_BYTES = 1 << 16
# What Debian and Fedora call the package of each program.
_PACKAGES: Mapping[str, str] = {
    "e2fsck": "e2fsprogs",
    "resize2fs": "e2fsprogs",
    "tune2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "mksquashfs": "squashfs-tools",
    "unsquashfs": "squashfs-tools",
}


def find_companion(engine: EngineInfo, name: str) -> str | None:
    """Return the path of a program: beside the engine's helpers, else where the system has it."""
    own = os.path.join(engine.libexec, engine.dot_folder.lstrip("."), "bin")
    return shutil.which(name, path=f"{own}:{build_step_environment()['PATH']}")


def run_companion(
    engine: EngineInfo,
    argv: Sequence[str],
    title: str,
    *,
    timeout_s: float = 1800,
    cwd: str | None = None,
    ok_codes: Sequence[int] = (0,),
) -> Completed:
    """Run one of them to its end.

    Raises StepError for an exit status that is not in `ok_codes`, CommandTimeout, and FuseHelperMissing where it is not there.
    """
    program = get_companion(engine, argv[0], title)
    return run_step((program, *argv[1:]), title, timeout_s=timeout_s, cwd=cwd, ok_codes=ok_codes)


@contextmanager
def stream_companion(engine: EngineInfo, argv: Sequence[str], title: str) -> Iterator[IO[bytes]]:
    """Run one of them and yield its standard output, as bytes while they come; it is ended where the block ends before it.

    Raises StepError for an exit status other than 0, and FuseHelperMissing where it is not there.
    """
    program = get_companion(engine, argv[0], title)
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            (program, *argv[1:]),
            env=build_step_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        with process:
            assert process.stdout is not None
            try:
                yield process.stdout
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            errors.seek(0)
            lines = errors.read(_MAX_ERROR_BYTES).decode("utf-8", "replace").strip().splitlines()
            reason = lines[-1] if lines else f"exit status {process.returncode}"
            raise StepError(f"could not {title}: {reason}", lines)


def get_companion(engine: EngineInfo, name: str, title: str) -> str:
    """Return the path of a program. Raises FuseHelperMissing. title: what it is needed for, for the message."""
    program = find_companion(engine, name)
    if program is None:
        package = _PACKAGES.get(name, name)
        raise FuseHelperMissing(
            f"could not {title}: {name} is not installed",
            hint=f"`sudo apt-get install {package}` or `sudo dnf install {package}`, "
            "or `jupyter apptainer engine install --force`",
        )
    return program
