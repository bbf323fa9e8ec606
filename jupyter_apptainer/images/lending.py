"""An ipykernel for images that have none: wheels for the image's Python, unpacked once into the user's cache.

A bundle serves every image with the same Python, C library and processor. It is only ever mounted, read-only, and comes
last where Python searches: what the image or its layers have is used, and where our newest ipykernel would not fit that, an
older one that does is fetched into a bundle for just these packages.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..engine.environment import build_engine_environment
from ..engine.locate import EngineInfo
from ..engine.lock import hold_lock
from ..engine.options import Bind, ContainerOptions, build_exec
from ..engine.runner import Runner
from ..engine.step import OnProgress, StepError
from ..errors import CommandTimeout, ImageLacksIpykernel
from ..places import Places, make_private_dir, write_private_file
from .probe import LENT_DIR, PROBE_OPTIONS, ImageProbe, count_interpreter_words, load_probe, probe_image
from .wheels import Target, Wheel, download_wheels, find_conflicts, unpack_wheel

MIN_PYTHON = (3, 9)
# A bundle of another format is made anew. The older ones stay: kernels may be using them.
_FORMAT = 1
_ROOTS = ("ipykernel", "debugpy", "psutil")
_RECORD = "bundle.json"
_COMPILE_TIMEOUT_S = 300.0
_UNFINISHED_S = 3600.0


@dataclass(frozen=True)
class Bundle:
    """Packages on the host's disk. requires: package -> its requirements."""

    folder: Path
    requires: Mapping[str, Sequence[str]]

    @property
    def packages(self) -> Path:
        """The folder that a container gets to see."""
        return self.folder / "packages"


def can_lend(probe: ImageProbe) -> bool:
    """Say whether an ipykernel can be lent to the Python that `probe` found."""
    return _find_target(probe) is not None


def lend_ipykernel(
    engine: EngineInfo,
    image: str,
    command: Sequence[str],
    probe: ImageProbe,
    places: Places,
    environ: Mapping[str, str],
    *,
    options: ContainerOptions = PROBE_OPTIONS,
    is_fresh: bool = False,
    on_progress: OnProgress = lambda _: None,
) -> ImageProbe:
    """Return what a kernel finds in `image` with an ipykernel of ours beside it, fetching that where it is not there yet.

    probe: what is found without. options: binds and overlays that belong to the kernel.
    Raises ImageLacksIpykernel where it cannot be fetched, or does not work in this image.
    """
    target = _find_target(probe)
    if target is None:
        raise ImageLacksIpykernel(
            f"the image {image} has {probe.implementation} {probe.python_version}, but no ipykernel, and one can be lent to CPython 3.9 "
            "and newer only",
            hint="add one that fits to the image's recipe: `pip install ipykernel`",
        )
    maker = _Maker(engine, image, command, target, places, environ, options, on_progress)
    bundle = maker.get_bundle({})
    if conflicts := find_conflicts(bundle.requires, probe.packages):
        bundle = maker.get_bundle(probe.packages, conflicts[0])
    lent = probe_image(
        engine, image, command, places, environ, options=options, lent=str(bundle.packages), is_fresh=is_fresh
    )
    if lent.ipykernel is None or lent.problem:
        raise ImageLacksIpykernel(
            f"the image {image} has no ipykernel, and ours cannot be imported in it: {lent.problem or 'not found'}",
            hint="add one to the image's recipe: `pip install ipykernel`",
        )
    return lent


def find_lent(
    engine: EngineInfo,
    image: str,
    command: Sequence[str],
    probe: ImageProbe,
    places: Places,
    *,
    options: ContainerOptions = PROBE_OPTIONS,
) -> ImageProbe | None:
    """Return what `lend_ipykernel` has found earlier; None where something would have to be fetched or asked. Starts nothing."""
    target = _find_target(probe)
    bundle = _load_bundle(_find_folder(target, {}, places)) if target else None
    if target and bundle and find_conflicts(bundle.requires, probe.packages):
        bundle = _load_bundle(_find_folder(target, probe.packages, places))
    if bundle is None:
        return None
    return load_probe(engine, image, command, places, options=options, lent=str(bundle.packages))


def _find_target(probe: ImageProbe) -> Target | None:
    if not (probe.abi and probe.libc and probe.machine and probe.python_version):
        return None
    try:
        target = Target(probe.python_version, probe.abi, probe.libc, probe.machine)
    except ValueError:
        return None
    version = tuple(int(number) for number in target.minor.split("."))
    return target if version >= MIN_PYTHON else None


def _find_folder(target: Target, installed: Mapping[str, str], places: Places) -> Path:
    """Return where the bundle for `target` lies, or will; with `installed`, that for just these packages."""
    suffix = ""
    if installed:
        suffix = "-" + hashlib.sha256(json.dumps(sorted(installed.items())).encode()).hexdigest()[:12]
    return places.lent / f"{target.name}-v{_FORMAT}{suffix}"


def _load_bundle(folder: Path) -> Bundle | None:
    try:
        record: dict[str, Any] = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        return Bundle(folder, record["requires"])
    except (OSError, ValueError, KeyError):
        return None


class _Maker:
    """Makes bundles for one image's Python."""

    def __init__(
        self,
        engine: EngineInfo,
        image: str,
        command: Sequence[str],
        target: Target,
        places: Places,
        environ: Mapping[str, str],
        options: ContainerOptions,
        on_progress: OnProgress,
    ) -> None:
        self._engine = engine
        self._image = image
        self._python = tuple(command[: count_interpreter_words(command)])
        self._target = target
        self._places = places
        self._environ = environ
        self._options = options
        self._on_progress = on_progress

    def get_bundle(self, installed: Mapping[str, str], conflict: str = "") -> Bundle:
        """Return the bundle, making it where it is not there. Whole or not at all: it is renamed when it is finished.

        installed: packages of the image that it has to fit; conflict: why the general one does not.
        """
        folder = _find_folder(self._target, installed, self._places)
        if bundle := _load_bundle(folder):
            return bundle
        parent = make_private_dir(folder.parent)
        with hold_lock(
            parent / f".{folder.name}.lock", on_wait=lambda: self._on_progress("Waiting for another preparation to end")
        ):
            if bundle := _load_bundle(folder):
                return bundle
            _remove_unfinished(parent, folder.name)
            unfinished = parent / f".{folder.name}.{secrets.token_hex(4)}"
            try:
                self._make(make_private_dir(unfinished), installed)
                shutil.rmtree(folder, ignore_errors=True)
                os.rename(unfinished, folder)
            except StepError as error:
                raise self._explain(error, conflict) from error
            except (OSError, CommandTimeout) as error:
                raise self._explain(StepError(str(error)), conflict) from error
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        bundle = _load_bundle(folder)
        assert bundle is not None
        return bundle

    def _make(self, folder: Path, installed: Mapping[str, str]) -> None:
        what = f"an ipykernel for Python {self._target.minor} ({self._target.name})"
        self._on_progress(f"Fetching {what}" + (", that fits the image's packages" if installed else ""))
        scratch, packages = folder / "scratch", folder / "packages"
        scratch.mkdir()
        packages.mkdir()
        wheels = download_wheels(_ROOTS, self._target, scratch, environ=self._environ, installed=installed)
        for wheel in wheels:
            unpack_wheel(wheel, packages)
        shutil.rmtree(scratch)
        self._on_progress("Compiling it with the image's own Python")
        self._compile(packages)
        write_private_file(folder / _RECORD, json.dumps(_describe(wheels), indent=1))

    def _compile(self, packages: Path) -> None:
        overlays = tuple(overlay.removesuffix(":ro") + ":ro" for overlay in self._options.overlays)
        binds = (*self._options.binds, Bind(str(packages), LENT_DIR))
        options = replace(self._options, overlays=overlays, binds=binds)
        env = build_engine_environment(self._environ, {"PYTHONNOUSERSITE": "1"})
        argv = (*self._python, "-m", "compileall", "-q", "-j", "0", LENT_DIR)
        command = build_exec(
            self._engine, self._image, argv, env, options=options, cwd="/", timeout_s=_COMPILE_TIMEOUT_S
        )
        # A file that is not meant for this Python is no reason to fail, and what is not compiled is only slower.
        Runner().complete(command)

    def _explain(self, error: StepError, conflict: str) -> ImageLacksIpykernel:
        fitting = f" that fits its packages ({conflict})" if conflict else ""
        return ImageLacksIpykernel(
            f"the image {self._image} has Python {self._target.python_version}, but no ipykernel, and none{fitting} could be "
            f"fetched to lend it: {error.reason}",
            hint="run `jupyter apptainer kernel check NAME` once where pip reaches its index; "
            "or add ipykernel to the image's recipe: `pip install ipykernel`",
            log_tail=error.log_tail,
        )


def _remove_unfinished(parent: Path, name: str) -> None:
    """Remove what a killed process left behind. Not what is new: on a file system without locks somebody may be at work there."""
    for path in parent.glob(f".{name}.*"):
        with suppress(OSError):
            if path.is_dir() and time.time() - path.stat().st_mtime > _UNFINISHED_S:
                shutil.rmtree(path, ignore_errors=True)


def _describe(wheels: Sequence[Wheel]) -> dict[str, object]:
    return {
        "versions": {wheel.name: wheel.version for wheel in wheels},
        "requires": {wheel.name: list(wheel.requires) for wheel in wheels},
    }
