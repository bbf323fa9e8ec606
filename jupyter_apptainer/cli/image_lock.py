"""`jupyter apptainer image lock`, and what `build --lock` and `verify --lock` say: how an image is what it was."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..engine.locate import EngineInfo
from ..images.catalogue import find_image
from ..images.compare import PackageChange
from ..images.lock import Lock, load_lock, make_lock, save_lock
from ..images.pins import list_pins
from ..images.rebuild import LockDifference, compare_lock
from ..kernels.notebook_lock import write_notebook_lock
from ..places import Places
from .image_settings import find_engine_and_places
from .output import print_json, print_note
from .verbs import add_verb

_SHOWN = 20


def add_lock(commands: Any) -> None:
    """Add `lock` to the commands of `image`."""
    lock = add_verb(
        commands,
        "image",
        "lock",
        "write down all that is needed to make an image again or to prove that one is the same",
        "lock lab.sif -o lab.lock.json",
        "lock lab.sif --notebook analysis.ipynb",
        "lock lab.sif --pins python > requirements.txt",
    )
    lock.add_argument("image", metavar="IMG", help="a .sif file, or the URI of an image that was pulled")
    lock.add_argument("-o", "--output", metavar="FILE", help="the lock file (default: standard output)")
    lock.add_argument(
        "--notebook",
        metavar="NB",
        help="write it into this notebook's metadata, and let the notebook ask for this image by its digest",
    )
    lock.add_argument(
        "--pins",
        choices=("python", "conda", "dpkg"),
        help="print only versions, as pip (a requirements file), conda (an explicit list) or apt-get take them",
    )
    lock.set_defaults(func=_lock)


def _lock(arguments: argparse.Namespace) -> int:
    engine, places = find_engine_and_places()
    lock = make_lock(engine, places, find_image(places, arguments.image))
    if arguments.pins:
        print(list_pins(lock.packages)[arguments.pins], end="")
        return 0
    if not lock.build.definition:
        print_note("warning: the image does not say what it was built from: the lock can prove it, not make it again")
    if arguments.notebook:
        write_notebook_lock(lock, Path(arguments.notebook))
        print_note(f"{arguments.notebook} asks for {lock.image.name} by its digest; close and open it where it is open")
    if arguments.output:
        save_lock(lock, Path(arguments.output))
        print(arguments.output)
    elif not arguments.notebook:
        print_json(lock.to_json())
    return 0


def tell_rebuilt(engine: EngineInfo, places: Places, lock: Lock, path: Path) -> None:
    """Say on standard error how an image that was built of a lock differs from the locked one."""
    difference = compare_lock(lock, make_lock(engine, places, str(path)))
    for line in describe_difference(difference):
        print_note(line)


def verify_lock(path: str, lock_file: str, *, is_json: bool) -> int:
    """Say whether an image is that of a lock; 0 where all its files are the same."""
    engine, places = find_engine_and_places()
    difference = compare_lock(load_lock(Path(lock_file)), make_lock(engine, places, find_image(places, path)))
    if is_json:
        print_json(asdict(difference))
    else:
        for line in describe_difference(difference):
            print(line)
    return 0 if difference.is_same_content else 1


def describe_difference(difference: LockDifference) -> list[str]:
    """Return lines for people."""
    if difference.is_same_file:
        return ["identical: it is the locked image, byte for byte"]
    if difference.is_same_content:
        return ["the same files as in the locked image; only how they are packed differs"]
    lines = [f"{len(difference.packages)} packages differ from the locked image"] if difference.packages else []
    lines += show_packages(difference.packages)
    if difference.folders:
        rest = len(difference.folders) - _SHOWN
        more = f" and {rest} more" if rest > 0 else ""
        lines.append(f"files differ below: {', '.join(difference.folders[:_SHOWN])}{more}")
    lines += [f"built from another {', '.join(difference.build)}"] if difference.build else []
    return lines or ["another image: it is packed in another way"]


def show_packages(changes: Sequence[PackageChange]) -> list[str]:
    """Return a line for each package: - removed, + added, ~ of another version."""
    lines = []
    for each in changes:
        where = f" in {each.place}" if each.place else ""
        sign = "+" if each.first is None else "-" if each.second is None else "~"
        versions = " -> ".join(version for version in (each.first, each.second) if version is not None)
        lines.append(f"{sign} {each.manager} {each.name} {versions}{where}")
    return lines


def show_paths(sign: str, paths: Sequence[str], *, is_complete: bool = False) -> list[str]:
    """Return a line for each path, the first of many unless all are wanted."""
    shown = paths if is_complete or not sys.stdout.isatty() else paths[:_SHOWN]
    rest = len(paths) - len(shown)
    return [f"{sign} /{path}" for path in shown] + ([f"{sign} … and {rest} more"] if rest else [])
