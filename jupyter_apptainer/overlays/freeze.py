"""Turn what is in an overlay into something that is only read: a squashfs layer for the same image, or a part of a new image.

A deleted file is in the overlay as `.wh.NAME`, and a folder that hides the image's as one with `.wh..wh..opq` in it:
fuse-overlayfs writes them so where it cannot make device nodes.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..engine.companions import run_companion
from ..engine.locate import EngineInfo
from ..engine.step import OnProgress
from ..errors import OverlayCreateError, OverlayUnclean, SpecError
from ..instances.janitor import remove_tree
from ..places import Places
from .holder import hold_overlay, needs_check
from .manage import check_disk, get_ext3_overlay
from .model import Overlay, load_overlay, new_record, save_record

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
# Where the engine keeps the layer in an overlay file.
_UPPER = "upper"


def freeze_to_layer(
    engine: EngineInfo, path: str, target: str, places: Places, *, on_progress: OnProgress = lambda _: None
) -> Overlay:
    """Make a squashfs layer of an ext3 overlay, to be used as `TARGET:ro`; the overlay stays as it is.

    Raises OverlayBusy while a kernel writes to it.
    """
    overlay = get_ext3_overlay(path)
    with unpack_overlay(engine, path, target, places, on_progress) as upper:
        on_progress(f"Writing {target}")
        argv = ("mksquashfs", str(upper), target, "-quiet", "-no-progress", "-all-root", "-noappend")
        try:
            run_companion(engine, argv, f"write {target}")
        except BaseException:
            Path(target).unlink(missing_ok=True)
            raise
    save_record(target, replace(overlay.record or new_record(), origin=f"frozen from {path}", mode=None))
    return load_overlay(target)


def apply_layer(upper: Path, root: Path) -> None:
    """Do to the tree below `root` what the layer `upper` does to an image: delete, replace, add."""
    names = sorted(os.listdir(upper))
    if _OPAQUE in names:
        for name in os.listdir(root):
            _remove(root / name)
    for name in names:
        source = upper / name
        if name.startswith(_WHITEOUT):
            if not name.startswith(".wh..wh.") and name != ".wh..opq":
                _remove(root / name.removeprefix(_WHITEOUT))
            continue
        target = root / name
        status = source.lstat()
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            # How Linux' own overlayfs writes that a file is deleted.
            _remove(target)
        elif source.is_dir() and not source.is_symlink():
            if not target.is_dir() or target.is_symlink():
                _remove(target)
                target.mkdir()
            mode = stat.S_IMODE(status.st_mode)
            # Its owner must be able to work in it until it is done.
            target.chmod(mode | 0o700)
            apply_layer(source, target)
            target.chmod(mode)
        else:
            _remove(target)
            shutil.copy2(source, target, follow_symlinks=False)


@contextmanager
def unpack_overlay(
    engine: EngineInfo, path: str, target: str, places: Places, on_progress: OnProgress = lambda _: None
) -> Iterator[Path]:
    """Yield a folder with what an overlay changes, for `apply_layer`; it is gone behind the block, or the overlay's own.

    target: what shall be made of it, which must not be there yet; beside it there is room. Raises OverlayBusy while a kernel writes
    to the overlay, OverlayUnclean, SpecError for a folder of packages.
    """
    overlay = load_overlay(path)
    parent = _check_target(target)
    if overlay.kind not in ("ext3", "squashfs", "folder"):
        raise SpecError(
            f"{path} is no overlay that could become part of an image: {overlay.kind}",
            hint="a folder of packages belongs to its own path: install the packages with `%pip` above an overlay, or list them in a recipe",
        )
    if overlay.kind == "folder":
        with hold_overlay(path, places, for_writing=False):
            yield _get_upper(Path(path), path)
        return
    check_disk(target, 2 * _measure(overlay))
    scratch = tempfile.mkdtemp(prefix=".jpa-freeze-", dir=parent)
    try:
        if needs_check(path, overlay.ext3):
            raise OverlayUnclean(f"the overlay {path} was not closed properly")
        with hold_overlay(path, places, for_writing=False):
            on_progress(f"Reading {path}")
            yield _unpack(engine, overlay, Path(scratch))
    finally:
        remove_tree(scratch)


def _check_target(target: str) -> str:
    if os.path.lexists(target):
        raise OverlayCreateError(f"{target} exists already", hint="choose another name")
    parent = os.path.dirname(os.path.abspath(target))
    if not os.path.isdir(parent):
        raise OverlayCreateError(f"there is no folder {parent}", hint="create it first")
    return parent


def _measure(overlay: Overlay) -> int:
    return overlay.ext3.size_bytes - overlay.ext3.free_bytes if overlay.ext3 else overlay.size_bytes


def _unpack(engine: EngineInfo, overlay: Overlay, scratch: Path) -> Path:
    path = os.path.abspath(overlay.path)
    if overlay.kind == "squashfs":
        upper = scratch / _UPPER
        run_companion(engine, ("unsquashfs", "-quiet", "-no-progress", "-dest", str(upper), path), f"read {path}")
        return upper
    # It complains about owners that it may not set, and ends with 0 in any case.
    run_companion(engine, ("debugfs", "-R", f"rdump /{_UPPER} .", path), f"read {path}", cwd=str(scratch))
    return _get_upper(scratch, overlay.path)


def _get_upper(folder: Path, path: str) -> Path:
    upper = folder / _UPPER
    if not upper.is_dir():
        raise OverlayCreateError(f"{path} holds no layer: it was never used as an overlay")
    return upper


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        remove_tree(str(path))
    elif os.path.lexists(path):
        path.unlink()
