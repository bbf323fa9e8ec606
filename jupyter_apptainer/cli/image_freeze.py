"""`jupyter apptainer image freeze`: an image and its overlays become one new image."""

from __future__ import annotations

import argparse
import os
import shlex
from typing import Any

from ..errors import SpecError
from ..images.build_options import COMPRESSIONS
from ..images.catalogue import find_image
from ..kernels.freeze_image import Layers, find_kernel_layers, freeze_image
from .image_settings import find_engine_and_places
from .output import print_note
from .progress import show_progress
from .verbs import add_verb


def add_freeze(commands: Any) -> None:
    """Add `freeze` to the commands of `image`."""
    freeze = add_verb(
        commands,
        "image",
        "freeze",
        "make one new image of an image and the overlays above it, or of what a kernel runs in; the overlays stay",
        "freeze analysis-2.sif --kernel analysis",
        "freeze analysis-2.sif --image analysis.sif --overlay extra.img",
    )
    freeze.add_argument("out", metavar="OUT", help="the new image's file")
    source = freeze.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--kernel", metavar="NAME", help="the image and overlays of this kernel, as `kernel list` shows it"
    )
    source.add_argument(
        "--image", metavar="IMG", help="a .sif file, an unpacked image, or the URI of one that was pulled"
    )
    freeze.add_argument(
        "--overlay",
        action="append",
        default=[],
        metavar="FILE",
        help="with --image: an overlay, a layer or a folder above it; the lowest first (again for more)",
    )
    freeze.add_argument(
        "--compression",
        choices=tuple(COMPRESSIONS),
        default="lz4",
        help="lz4 (default) starts fastest, gzip is smallest",
    )
    freeze.set_defaults(func=_freeze)


def _freeze(arguments: argparse.Namespace) -> int:
    if bool(arguments.image) != bool(arguments.overlay):
        raise SpecError("give --image IMG with --overlay FILE, or --kernel NAME alone")
    engine, places = find_engine_and_places()
    target = os.path.abspath(arguments.out)
    if arguments.kernel:
        layers = find_kernel_layers(arguments.kernel, places, os.environ)
    else:
        overlays = (os.path.abspath(path) for path in arguments.overlay)
        layers = Layers(find_image(places, arguments.image), tuple(overlays))
    with show_progress() as tell:
        freeze_image(engine, places, layers, target, os.environ, compression=arguments.compression, on_progress=tell)
    print(target)
    if arguments.kernel:
        words = f"kernel edit {shlex.quote(arguments.kernel)} --image {shlex.quote(target)} --unset overlays"
        print_note(f"Let the kernel run in it: jupyter apptainer {words}")
    return 0
