"""The overlays of a kernel, from wish to file: where an automatic one lies, and what must be true before a start.

`apply_overlays` turns all wishes into overlays that exist, and a folder of packages into a bind and its interpreter, so that the
plan knows files only.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..engine.locate import EngineInfo
from ..errors import ApptainerError, ImageLacksPython, SpecError
from ..images.fingerprint import read_fingerprint
from ..images.identity import check_image
from ..images.probe import is_python_command
from ..overlays.ext3_tree import find_changed
from ..overlays.manage import create_overlay
from ..overlays.model import Mode, load_record, new_record
from ..overlays.ready import ImageMark, look_at_overlay, make_ready
from ..places import Places, make_private_dir
from .kernelspecs import iter_kernelspecs
from .spec import BindWish, ContainerSpec, OverlayWish

_FAKEROOT = frozenset({"--fakeroot", "-f"})
_ODD = re.compile(r"[^A-Za-z0-9._-]+")
# The engine puts it before the container's own PATH.
_PATH_PREFIX = "PREPEND_PATH"


@dataclass(frozen=True)
class OverlaySetup:
    """What came of the wishes. spec: with overlays as files. mode: in which the writable one is used. notes: for the log."""

    spec: ContainerSpec
    mode: Mode
    notes: tuple[str, ...] = ()


def find_overlay_path(wish: OverlayWish, places: Places, base_dir: str, environ: Mapping[str, str]) -> str:
    """Return the file of a wish: its own, or where an automatic overlay lies.

    base_dir: the kernelspec's folder, for which an `auto` overlay is made; that of `auto:notebook` is for JPY_SESSION_NAME.
    Raises SpecError where it is for a notebook and the client does not say which.
    """
    if wish.kind != "auto":
        return wish.path
    subject = _find_subject(wish, base_dir, environ)
    digest = hashlib.sha256(subject.encode()).hexdigest()[:8]
    stem = _ODD.sub("-", Path(subject).name.removesuffix(".ipynb")).strip("-")[:40]
    return str(places.overlays / f"{wish.per}-{stem}-{digest}.img")


def _find_subject(wish: OverlayWish, base_dir: str, environ: Mapping[str, str]) -> str:
    if wish.per == "kernel":
        return os.path.abspath(base_dir)
    notebook = environ.get("JPY_SESSION_NAME")
    if not notebook:
        raise SpecError(
            "overlays: `auto:notebook` needs to know the notebook, and this client does not say which it is",
            hint="use `auto` (one overlay for the kernel), or set JPY_SESSION_NAME to the notebook's path",
        )
    return os.path.abspath(notebook)


def mark_image(path: str) -> ImageMark:
    """Return what an overlay remembers of an image. Raises ImageNotFound and the like."""
    return ImageMark(path, read_fingerprint(check_image(path)))


def look_at_overlays(spec: ContainerSpec, places: Places, base_dir: str, environ: Mapping[str, str]) -> None:
    """Check the overlays of `spec` without changing anything. An automatic one need not exist yet."""
    if not any(wish.kind != "tmpfs" for wish in spec.overlays):
        return
    image = mark_image(spec.image)
    for wish in spec.overlays:
        if wish.kind == "tmpfs" or (wish.kind == "auto" and not base_dir):
            continue
        path = find_overlay_path(wish, places, base_dir, environ)
        if wish.kind == "auto" and not os.path.exists(path):
            continue
        look_at_overlay(path, places, is_read_only=wish.is_read_only, image=image, wanted=_find_wanted(spec))


def plan_overlays(spec: ContainerSpec, places: Places, base_dir: str, environ: Mapping[str, str]) -> OverlaySetup:
    """Return what a start would make of the wishes, as far as can be told without doing anything: for `explain`."""
    if "JPY_SESSION_NAME" not in environ:
        environ = {**environ, "JPY_SESSION_NAME": "NOTEBOOK"}
    wishes = tuple(
        wish if wish.kind == "tmpfs" else _as_file(wish, find_overlay_path(wish, places, base_dir, environ))
        for wish in spec.overlays
    )
    notes = tuple(
        f"the overlay {w.path} is made at the first start" for w in wishes if w.path and not os.path.exists(w.path)
    )
    records = [load_record(wish.path) for wish in wishes if wish.path and not wish.is_read_only]
    modes = [record.mode for record in records if record and record.mode]
    return OverlaySetup(_apply_packages(replace(spec, overlays=wishes)), modes[0] if modes else "plain", notes)


def apply_overlays(
    engine: EngineInfo, spec: ContainerSpec, places: Places, base_dir: str, environ: Mapping[str, str]
) -> OverlaySetup:
    """Make all overlays of `spec` ready, creating automatic ones. Blocking. Raises what forbids a start with them."""
    if not any(wish.kind != "tmpfs" for wish in spec.overlays):
        return OverlaySetup(spec, _find_wanted(spec) or "plain")
    image = mark_image(spec.image)
    wanted = _find_wanted(spec)
    mode: Mode = wanted or "plain"
    notes: list[str] = []
    wishes: list[OverlayWish] = []
    for wish in spec.overlays:
        if wish.kind == "tmpfs":
            wishes.append(wish)
            continue
        path = find_overlay_path(wish, places, base_dir, environ)
        if wish.kind == "auto" and not os.path.exists(path):
            origin = f"{wish.per} {_find_subject(wish, base_dir, environ)}"
            make_private_dir(places.overlays)
            create_overlay(engine, path, wish.size_mib, os.environ, record=new_record(origin=origin))
            notes.append(f"made the overlay {path} for {origin}")
        ready = make_ready(engine, path, image, places, os.environ, is_read_only=wish.is_read_only, wanted=wanted)
        notes += ready.notes
        if not wish.is_read_only:
            mode = ready.mode
        wishes.append(_as_file(wish, path))
    return OverlaySetup(_apply_packages(replace(spec, overlays=tuple(wishes))), mode, tuple(notes))


def keep_existing(spec: ContainerSpec, places: Places, base_dir: str, environ: Mapping[str, str]) -> ContainerSpec:
    """Return `spec` with the layers that are there now, as files: what the image is asked with before a start."""
    kept = []
    for wish in spec.overlays:
        if wish.kind == "auto" and wish.per == "notebook" and not environ.get("JPY_SESSION_NAME"):
            continue
        path = find_overlay_path(wish, places, base_dir, environ)
        if wish.kind == "tmpfs" or (os.path.exists(path) and not _is_packages(path)):
            kept.append(wish if wish.kind == "tmpfs" else _as_file(wish, path))
    return replace(spec, overlays=tuple(kept))


def find_overlay_users(places: Places, environ: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the overlays that our kernelspecs name, each with the names of these. Overlays of notebooks are not among them."""
    found: dict[str, tuple[str, ...]] = {}
    for kernelspec in iter_kernelspecs():
        try:
            wishes = kernelspec.resolve(environ).overlays
        except ApptainerError:
            # `kernel list` says what is wrong with it.
            continue
        for wish in wishes:
            if wish.kind == "tmpfs" or (wish.kind == "auto" and wish.per == "notebook"):
                continue
            path = find_overlay_path(wish, places, str(kernelspec.folder), environ)
            found[path] = (*found.get(path, ()), kernelspec.name)
    return found


def _as_file(wish: OverlayWish, path: str) -> OverlayWish:
    return OverlayWish("file", path, is_read_only=wish.is_read_only)


def _find_wanted(spec: ContainerSpec) -> Mode | None:
    return "fakeroot" if _FAKEROOT & set(spec.extra_flags) else None


def _apply_packages(spec: ContainerSpec) -> ContainerSpec:
    """Replace folders of packages: each is bound at its own path, and the kernel runs the interpreter of the first."""
    folders = [wish for wish in spec.overlays if wish.path and _is_packages(wish.path)]
    if not folders:
        return spec
    if len(folders) > 1:
        raise SpecError(
            "overlays: only one can be a folder of packages, and "
            + ", ".join(wish.path for wish in folders)
            + " all are",
            hint="install what is in the others into one of them",
        )
    (folder,) = folders
    if not is_python_command(spec.command):
        raise ImageLacksPython(
            f"{folder.path} is a folder of Python packages, and the kernel runs {spec.command[0]}",
            hint="use an ext3 overlay: `jupyter apptainer overlay create FILE`",
        )
    return replace(
        spec,
        overlays=tuple(wish for wish in spec.overlays if wish is not folder),
        binds=(*spec.binds, BindWish(folder.path, folder.path, "ro" if folder.is_read_only else "rw")),
        command=(os.path.join(folder.path, "bin", "python"), *spec.command[1:]),
        env={_PATH_PREFIX: os.path.join(folder.path, "bin"), **spec.env},
    )


def _is_packages(path: str) -> bool:
    record = load_record(path)
    return bool(record and record.python)


def find_changed_folders(spec: ContainerSpec, folders: Sequence[str]) -> tuple[str, ...] | None:
    """Return those of the image's folders in which the kernel's overlay has anything; None where nobody can tell before the start.

    spec: with overlays as files, ready to be used.
    """
    if not spec.overlays or spec.binds or spec.extra_flags:
        return None
    files = [wish for wish in spec.overlays if wish.kind == "file"]
    if not files:
        # In memory, and empty.
        return ()
    if len(spec.overlays) > 1 or files[0].is_read_only:
        return None
    changed = find_changed(files[0].path, folders)
    return None if changed is None else tuple(sorted(changed))
