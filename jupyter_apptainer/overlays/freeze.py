"""Turn what is in an overlay into something that is only read: a squashfs layer for the same image, or a new image.

A deleted file is in the overlay as `.wh.NAME`, and a folder that hides the image's as one with `.wh..wh..opq` in it:
fuse-overlayfs writes them so where it cannot make device nodes.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..engine.companions import run_companion
from ..engine.environment import build_engine_environment
from ..engine.locate import EngineInfo
from ..engine.options import Bind, ContainerOptions, build_exec, build_image_build
from ..engine.output import OnText
from ..engine.runner import Runner
from ..engine.step import OnProgress
from ..errors import OverlayCreateError, OverlayUnclean
from ..instances.janitor import remove_tree
from ..places import Places
from .ext3 import read_ext3
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
    with _unpacked(engine, path, target, places, on_progress) as upper:
        on_progress(f"Writing {target}")
        argv = ("mksquashfs", str(upper), target, "-quiet", "-no-progress", "-all-root", "-noappend")
        try:
            run_companion(engine, argv, f"write {target}")
        except BaseException:
            Path(target).unlink(missing_ok=True)
            raise
    save_record(target, replace(overlay.record or new_record(), origin=f"frozen from {path}", mode=None))
    return load_overlay(target)


def freeze_to_image(
    engine: EngineInfo,
    path: str,
    image: str,
    target: str,
    places: Places,
    environ: Mapping[str, str],
    *,
    on_progress: OnProgress = lambda _: None,
    on_text: OnText | None = None,
) -> None:
    """Make a new image of `image` and what an ext3 overlay changes in it. Raises OverlayBusy, BuildError, DiskFull."""
    get_ext3_overlay(path)
    env = build_engine_environment(environ)
    with _unpacked(engine, path, target, places, on_progress) as upper:
        root = upper.parent / "root"
        on_progress(f"Unpacking {image}")
        try:
            Runner().run(build_image_build(engine, str(root), image, env, is_sandbox=True), on_text=on_text)
            on_progress("Applying the overlay")
            _apply(upper, root, image)
            on_progress(f"Building {target}")
            Runner().run(build_image_build(engine, target, str(root), env), on_text=on_text)
        finally:
            _remove_unpacked(engine, root, image, env)


def _apply(upper: Path, root: Path, image: str) -> None:
    try:
        apply_layer(upper, root)
    except PermissionError as error:
        raise OverlayCreateError(
            f"the overlay changes {error.filename}, which belongs to another user in {image}",
            hint="freeze it to a layer (without --image), or build the new image from a definition file",
        ) from error


def _remove_unpacked(engine: EngineInfo, root: Path, image: str, env: Mapping[str, str]) -> None:
    """Remove the unpacked image. Folders of other users in it belong to subordinate ids, which only a namespace may touch."""
    remove_tree(str(root))
    if root.exists():
        options = ContainerOptions(fakeroot=True, home="none", binds=(Bind(str(root.parent), "/mnt"),))
        command = build_exec(engine, image, ("rm", "-rf", f"/mnt/{root.name}"), env, options=options, timeout_s=120)
        Runner().complete(command)


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
        if source.is_dir() and not source.is_symlink():
            if not target.is_dir() or target.is_symlink():
                _remove(target)
                target.mkdir()
            mode = stat.S_IMODE(source.stat().st_mode)
            # Its owner must be able to work in it until it is done.
            target.chmod(mode | 0o700)
            apply_layer(source, target)
            target.chmod(mode)
        else:
            _remove(target)
            shutil.copy2(source, target, follow_symlinks=False)


@contextmanager
def _unpacked(engine: EngineInfo, path: str, target: str, places: Places, on_progress: OnProgress) -> Iterator[Path]:
    """Yield a folder with the content of the overlay, in a folder of its own beside `target`."""
    if os.path.lexists(target):
        raise OverlayCreateError(f"{target} exists already", hint="choose another name")
    parent = os.path.dirname(os.path.abspath(target))
    found = read_ext3(path)
    if found is None or not os.path.isdir(parent):
        raise OverlayCreateError(f"there is no folder {parent}", hint="create it first")
    check_disk(target, 2 * (found.size_bytes - found.free_bytes))
    scratch = tempfile.mkdtemp(prefix=".jpa-freeze-", dir=parent)
    try:
        if needs_check(path, found):
            raise OverlayUnclean(f"the overlay {path} was not closed properly")
        with hold_overlay(path, places, for_writing=False):
            on_progress(f"Reading {path}")
            # It complains about owners that it may not set, and ends with 0 in any case.
            run_companion(
                engine, ("debugfs", "-R", f"rdump /{_UPPER} .", os.path.abspath(path)), f"read {path}", cwd=scratch
            )
        upper = Path(scratch, _UPPER)
        if not upper.is_dir():
            raise OverlayCreateError(f"{path} holds no layer: it was never used as an overlay")
        yield upper
    finally:
        remove_tree(scratch)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        remove_tree(str(path))
    elif os.path.lexists(path):
        path.unlink()
