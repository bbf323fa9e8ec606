"""Programs that come with an engine (e2fsck, resize2fs, debugfs, mksquashfs, …), used without starting the engine itself.

The engine's own copies come first: those of an engine in a folder of the user's are newer than the host's, and often the
only ones.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence

from ..errors import FuseHelperMissing
from .command import Completed
from .locate import EngineInfo
from .step import build_step_environment, run_step

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
    program = find_companion(engine, argv[0])
    if program is None:
        package = _PACKAGES.get(argv[0], argv[0])
        raise FuseHelperMissing(
            f"could not {title}: {argv[0]} is not installed",
            hint=f"`sudo apt-get install {package}` or `sudo dnf install {package}`, "
            "or `jupyter apptainer engine install --force`",
        )
    return run_step((program, *argv[1:]), title, timeout_s=timeout_s, cwd=cwd, ok_codes=ok_codes)
