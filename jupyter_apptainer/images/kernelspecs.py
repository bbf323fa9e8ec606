"""Kernelspecs inside an image, whatever their language: found with the image's own shell, copied out to be read here.

The image needs neither Python nor Jupyter.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..engine.diagnose import diagnose
from ..engine.environment import build_engine_environment
from ..engine.locate import EngineInfo
from ..engine.options import Bind, ContainerOptions, build_exec
from ..engine.runner import Runner
from ..errors import ImageInvalid
from .identity import check_image
from .probe import PROBE_OPTIONS, PROBE_TIMEOUT_S

_SCRIPT = Path(__file__).with_name("find_kernels.sh")
_MOUNT_POINT = "/mnt"
# A kernel.json is a page at most, a logo some kilobytes.
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class ImageKernelspec:
    """A kernelspec in an image.

    folder: its path in the image. document: its kernel.json; None where that is not a JSON object. python: the Python of the
    environment that it belongs to. copy: the folder of the host with its logos.
    """

    folder: str
    document: Mapping[str, Any] | None
    python: str | None
    copy: Path


def find_kernelspecs(
    engine: EngineInfo,
    image: str,
    copies: Path,
    environ: Mapping[str, str],
    *,
    options: ContainerOptions = PROBE_OPTIONS,
) -> tuple[ImageKernelspec, ...]:
    """Return the kernelspecs in `image`, in the order in which a Jupyter of the image would look.

    copies: an empty folder of the caller's, for the files. options: overlays that bring kernels; they are mounted read-only.
    Raises what `check_image` and `diagnose` find, ImageInvalid where the image has no shell.
    """
    check_image(image)
    overlays = tuple(overlay.removesuffix(":ro") + ":ro" for overlay in options.overlays)
    binds = (*options.binds, Bind(str(copies), _MOUNT_POINT))
    command = build_exec(
        engine,
        image,
        ("/bin/sh", "-c", _SCRIPT.read_text(encoding="utf-8"), "sh", _MOUNT_POINT),
        build_engine_environment(environ),
        options=replace(options, overlays=overlays, binds=binds),
        cwd="/",
        timeout_s=PROBE_TIMEOUT_S,
    )
    completed = Runner().complete(command)
    if completed.returncode:
        if "/bin/sh: no such file" in completed.stderr or "executable file not found" in completed.stderr:
            raise ImageInvalid(
                f"the image {image} has no shell, so it cannot be searched",
                hint="name its kernel's program: `jupyter apptainer kernel add NAME IMAGE --command …`",
            )
        raise diagnose(completed, title=f"look for kernels in {image}", subject=image, shown=f"sh {_SCRIPT.name}")
    folders = [path for path in copies.iterdir() if path.name.isdigit() and path.is_dir() and not path.is_symlink()]
    found = (_load(folder) for folder in sorted(folders, key=lambda path: int(path.name)))
    return tuple(kernelspec for kernelspec in found if kernelspec)


def _load(copy: Path) -> ImageKernelspec | None:
    """Read what the image's own programs have written: they are as trustworthy as the image."""
    for logo in copy.glob("logo-*"):
        if _read_file(logo) is None:
            logo.unlink()
    folder = _read_file(copy / "folder")
    if folder is None:
        return None
    python = _read_file(copy / "python")
    return ImageKernelspec(
        folder=os.fsdecode(folder),
        document=_parse_document(_read_file(copy / "kernel.json")),
        python=os.fsdecode(python) if python else None,
        copy=copy,
    )


def _read_file(path: Path) -> bytes | None:
    """Return the content of a plain file of reasonable size; None for anything else, a link to a file of the host above all."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        with open(path, "rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except OSError:
        return None
    return content if len(content) <= _MAX_BYTES else None


def _parse_document(content: bytes | None) -> Mapping[str, Any] | None:
    try:
        document = json.loads((content or b"").decode("utf-8-sig"))
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
