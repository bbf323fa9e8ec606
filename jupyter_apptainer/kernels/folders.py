"""The folders and files that a plan asks for: made before the start of an instance, and before each kernel that joins one."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DiskFull, LaunchError
from ..images.probe import is_python_command
from ..instances.janitor import remove_tree
from ..places import make_private_dir
from .forking import BUNDLE, PROGRAM
from .plan import SESSION_SCRIPT, SHIM, LaunchPlan, PlannedFile

_INSIDE = Path(__file__).parent / "inside"


def make_folders(plan: LaunchPlan, *, is_joining: bool = False) -> None:
    """Make them. is_joining: the instance runs, so that its own folders are there, and mounted already.

    Raises DiskFull or LaunchError; then what was made is removed.
    """
    with _explaining(plan, is_joining):
        for folder in (plan.private_dir, plan.scratch_dir):
            make_private_dir(Path(folder).parent)
            make_private_dir(Path(folder))
        for planned in plan.files:
            if not is_joining or planned.kind == "folder":
                _make(planned)
        if plan.fork_server and not is_joining:
            for script in (SHIM, *PROGRAM):
                _copy(script, plan.fork_server.folder)
            if plan.fork_server.bundle:
                Path(plan.fork_server.folder, BUNDLE).touch()
        script = SHIM if is_python_command(plan.kernel_command) else SESSION_SCRIPT
        _copy(script, plan.private_dir)


def _copy(script: str, folder: str) -> None:
    target = os.path.join(folder, script)
    shutil.copyfile(_INSIDE / script, target)
    os.chmod(target, 0o700)


def _make(planned: PlannedFile) -> None:
    path = Path(planned.path)
    if planned.kind == "link":
        # That of a shared instance stays where a crash ended it.
        path.unlink(missing_ok=True)
        path.symlink_to(planned.target)
    elif planned.kind == "mountpoint" and not os.path.isdir(planned.target):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    else:
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def _explaining(plan: LaunchPlan, is_joining: bool) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        for folder in (plan.private_dir,) if is_joining else (plan.private_dir, plan.scratch_dir):
            remove_tree(folder)
        if error.errno == errno.ENOSPC:
            raise DiskFull(f"no space left on the disk of {error.filename or plan.private_dir}") from error
        raise LaunchError(
            f"could not make the kernel's folders: {error}",
            hint="set XDG_RUNTIME_DIR and TMPDIR to folders that are yours",
        ) from error
