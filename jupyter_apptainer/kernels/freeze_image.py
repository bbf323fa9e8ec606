"""An image and what is written above it, in overlays, become one new image, which says what it was made of."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..engine.environment import build_engine_environment
from ..engine.locate import EngineInfo
from ..engine.options import build_image_build
from ..engine.output import OnText
from ..engine.runner import Runner
from ..engine.step import OnProgress
from ..errors import OverlayCreateError, SpecError
from ..images.build_options import COMPRESSIONS
from ..images.digest import compute_digest
from ..images.identity import check_image
from ..images.pack import Packing
from ..images.starter import remove_build_folder
from ..overlays.freeze import apply_layer, unpack_overlay
from ..places import Places
from .kernelspecs import get_kernelspec
from .local_image import find_local_image, refuse_remote_image
from .overlays import find_overlay_path

_LABEL = "org.jupyter-apptainer.frozen."


@dataclass(frozen=True)
class Layers:
    """image: a file or folder. overlays: files and folders, the lowest first."""

    image: str
    overlays: tuple[str, ...]


def find_kernel_layers(name: str, places: Places, environ: Mapping[str, str]) -> Layers:
    """Return what a kernelspec's kernel runs in. What is in memory only is left out. Raises SpecError where there is no overlay."""
    kernelspec = get_kernelspec(name)
    spec = find_local_image(kernelspec.resolve(environ), places)
    refuse_remote_image(spec)
    files = [wish for wish in spec.overlays if wish.kind != "tmpfs"]
    # The one that can be written to lies above the others, wherever it stands.
    ordered = sorted(files, key=lambda wish: not wish.is_read_only)
    paths = (find_overlay_path(wish, places, str(kernelspec.folder), environ) for wish in ordered)
    found = tuple(path for path in paths if os.path.exists(path))
    if not found:
        raise SpecError(f"the kernel {name} has no overlay yet: there is nothing to freeze")
    return Layers(spec.image, found)


def freeze_image(
    engine: EngineInfo,
    places: Places,
    layers: Layers,
    target: str,
    environ: Mapping[str, str],
    *,
    compression: str = "lz4",
    on_progress: OnProgress = lambda _: None,
    on_text: OnText | None = None,
) -> None:
    """Make the image `target`. The overlays stay as they are.

    Raises OverlayBusy while a kernel writes to one, OverlayCreateError where the image's files belong to others, DiskFull.
    """
    check_image(layers.image)
    env = build_engine_environment(environ)
    scratch = Path(target).absolute().parent / f".jpa-freeze-{secrets.token_hex(4)}"
    fresh = scratch / "image.sif"
    if os.path.lexists(target):
        raise OverlayCreateError(f"{target} exists already", hint="choose another name")
    try:
        scratch.mkdir(mode=0o700)
        root = scratch / "root"
        on_progress(f"Unpacking {layers.image}")
        Runner().run(build_image_build(engine, str(root), layers.image, env, is_sandbox=True), on_text=on_text)
        for overlay in layers.overlays:
            with unpack_overlay(engine, overlay, target, places, on_progress) as upper:
                on_progress(f"Applying {overlay}")
                _apply(upper, root, layers.image)
        _describe(root, layers, _name_image(layers.image, places))
        packing = Packing(engine, root, fresh, env, epoch=None)
        on_progress(f"Writing {target}")
        Runner().run(packing.build_command(COMPRESSIONS[compression]), on_text=on_text)
        packing.conclude()
        fresh.rename(target)
    finally:
        remove_build_folder(scratch)


def _apply(upper: Path, root: Path, image: str) -> None:
    try:
        apply_layer(upper, root)
    except PermissionError as error:
        raise OverlayCreateError(
            f"the overlay changes {error.filename}, which belongs to another user in {image}",
            hint="freeze it to a layer (`overlay freeze`), or build the new image from a definition file",
        ) from error


def _name_image(image: str, places: Places) -> str:
    is_folder = check_image(image).kind == "sandbox"
    return os.path.basename(image) + ("" if is_folder else f"@sha256:{compute_digest(image, places)}")


def _describe(root: Path, layers: Layers, image: str) -> None:
    """Write down where the image comes from, and keep the first one's definition, as comments."""
    folder = root / ".singularity.d"
    folder.mkdir(exist_ok=True)
    definition, labels = folder / "Singularity", folder / "labels.json"
    names = [os.path.basename(path) for path in layers.overlays]
    old = definition.read_text(encoding="utf-8", errors="replace") if definition.is_file() else ""
    definition.write_text("\n".join(_build_definition(image, names, old)) + "\n", encoding="utf-8")
    found = json.loads(labels.read_text(encoding="utf-8")) if labels.is_file() else {}
    found |= {f"{_LABEL}image": image, f"{_LABEL}overlays": " ".join(names)}
    labels.write_text(json.dumps(found, indent="\t", sort_keys=True), encoding="utf-8")


def _build_definition(image: str, overlays: Sequence[str], old: str) -> Iterator[str]:
    yield "Bootstrap: localimage"
    yield f"From: {image.partition('@')[0]}"
    yield ""
    yield f"# Frozen from {image} and what was in {', '.join(overlays)}."
    yield "%post"
    yield "    echo 'What came of the overlays is in the frozen image alone: this definition does not make it again.' >&2"
    yield "    exit 1"
    if old:
        yield ""
        yield f"# {image.partition('@')[0]} was built from this:"
        yield from (f"# {line}".rstrip() for line in old.splitlines())
