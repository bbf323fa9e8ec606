"""Who uses an image: kernelspecs that name it, and kernels that run in it. What is in use is not removed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..engine.holders import find_holders
from ..errors import ImageBusy, ImageInvalid, SpecError
from ..images.identity import check_image
from ..images.records import remove_record
from ..images.starter import remove_build_folder
from ..instances.ledger import iter_entries
from ..places import Places
from .kernelspecs import iter_kernelspecs
from .local_image import find_local_image
from .spec import is_uri


@dataclass(frozen=True)
class Usage:
    """kernels: names of kernelspecs. running: instances and other programs that have it open, each as words for people."""

    kernels: tuple[str, ...] = ()
    running: tuple[str, ...] = ()


def map_kernels_to_images(places: Places, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the image's path of each kernelspec of ours, by name. Those whose image is elsewhere, or that are wrong, are left out."""
    found: dict[str, str] = {}
    for kernel in iter_kernelspecs():
        try:
            spec = find_local_image(kernel.resolve(environ), places)
        except SpecError:
            continue
        if not is_uri(spec.image):
            found[kernel.name] = spec.image
    return found


def find_usage(path: str, places: Places, environ: Mapping[str, str]) -> Usage:
    """Return who uses the image at `path`, under whatever name."""
    real = os.path.realpath(path)
    kernels = [
        name for name, image in map_kernels_to_images(places, environ).items() if os.path.realpath(image) == real
    ]
    entries = [entry for entry in iter_entries(places) if os.path.realpath(entry.image) == real]
    running = [
        f"{'a' if entry.is_spare else 'the kernel of'} {entry.label or entry.kernel_id} (instance {entry.name})"
        for entry in entries
    ]
    if not running:
        # Instances that others started: the program that mounts the image has it open.
        running = [
            f"instance {holder.instance}" if holder.instance else f"process {holder.pid} ({holder.program})"
            for holder in find_holders(path)
        ]
    return Usage(tuple(kernels), tuple(running))


def remove_image(path: str, places: Places, environ: Mapping[str, str], *, is_forced: bool = False) -> int:
    """Delete an image and return how many bytes that gives back. is_forced: even if kernelspecs name it.

    Raises ImageBusy while a kernel runs in it, or a kernelspec names it; what `check_image` does for what is no image.
    """
    identity = check_image(path)
    usage = find_usage(path, places, environ)
    if usage.running:
        raise ImageBusy(
            f"the image {path} is in use by {', '.join(usage.running)}",
            hint="shut that down first; `jupyter apptainer instance list` shows the kernels that run",
        )
    if usage.kernels and not is_forced:
        names = " ".join(usage.kernels)
        raise ImageBusy(
            f"the image {path} is in use by the kernel{'s' if len(usage.kernels) > 1 else ''} {', '.join(usage.kernels)}",
            hint=f"remove them first: `jupyter apptainer kernel remove {names}`, or give --force to leave them without an image",
        )
    if os.path.islink(path):
        os.unlink(path)
        return 0
    if identity.kind == "sandbox":
        _remove_sandbox(path)
    else:
        os.unlink(path)
    remove_record(places, os.path.abspath(path))
    return identity.size_bytes


def _remove_sandbox(path: str) -> None:
    """Any root of a system looks like an unpacked image: only what the engine has marked as one is deleted."""
    if os.path.ismount(path) or not os.path.isdir(os.path.join(path, ".singularity.d")):
        raise ImageInvalid(
            f"the folder {path} was not made by the engine, so it is not deleted", hint="delete it by hand"
        )
    remove_build_folder(Path(path))
    if os.path.lexists(path):
        raise ImageInvalid(f"the folder {path} could not be deleted", hint="check its owner and permissions")
