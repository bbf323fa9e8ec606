"""`jupyter apptainer image packages`: what is installed in an image, by whichever package manager. Nothing of the image is started."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from ..images.catalogue import find_image
from ..images.inventory import read_inventory
from .image_settings import find_engine_and_places
from .output import print_json, print_table
from .verbs import add_verb


def add_packages(commands: Any) -> None:
    """Add `packages` to the commands of `image`."""
    packages = add_verb(
        commands,
        "image",
        "packages",
        "the packages that are installed in an image; it is read to its end, and not started",
        "packages lab.sif",
        "packages lab.sif --json",
    )
    packages.add_argument(
        "image", metavar="IMG", help="a .sif file, an unpacked image, or the URI of an image that was pulled"
    )
    packages.add_argument("--json", action="store_true", help="print a list of objects")
    packages.set_defaults(func=_packages)


def _packages(arguments: argparse.Namespace) -> int:
    engine, places = find_engine_and_places()
    found = read_inventory(engine, find_image(places, arguments.image)).packages
    if arguments.json:
        print_json([asdict(each) for each in found])
        return 0
    rows = [(each.name, each.version, each.manager, each.place or "-") for each in found]
    print_table(("PACKAGE", "VERSION", "MANAGER", "PLACE"), rows)
    return 0
