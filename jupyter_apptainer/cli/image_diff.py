"""`jupyter apptainer image diff`: in what two images differ, from what they say about themselves down to each file."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from ..images.catalogue import compare_definitions, compare_images, find_image, load_image
from ..images.compare import PackageChange, compare_files, compare_packages
from ..images.inventory import read_inventory
from ..places import find_places
from .image_lock import show_packages, show_paths
from .image_settings import find_engine_and_places
from .output import print_json, print_table
from .verbs import add_verb

_IMAGE = "a .sif file, an unpacked image, or the URI of an image that was pulled"


def add_diff(commands: Any) -> None:
    """Add `diff` to the commands of `image`."""
    diff = add_verb(
        commands,
        "image",
        "diff",
        "in what two images differ: origin, labels, apps, definition; with --files also packages and each file",
        "diff lab-2025.sif lab-2026.sif",
        "diff --files lab-2025.sif lab-2026.sif",
    )
    diff.add_argument(
        "--files",
        action="store_true",
        help="read both to their end and compare packages and files, still without a start",
    )
    diff.add_argument("first", metavar="A", help=_IMAGE)
    diff.add_argument("second", metavar="B", help=_IMAGE)
    diff.set_defaults(func=_diff)
    diff.add_argument("--json", action="store_true", help="print JSON")


def _diff(arguments: argparse.Namespace) -> int:
    places = find_places()
    first, second = (load_image(places, find_image(places, name)) for name in (arguments.first, arguments.second))
    differences, lines = compare_images(first, second), compare_definitions(first, second)
    contents = _compare_contents(first.path, second.path) if arguments.files else {}
    if arguments.json:
        print_json({"differences": [asdict(each) for each in differences], "definition": lines, **contents})
        return 0
    print_table(("", "A", "B"), [(each.topic, _show(each.first), _show(each.second)) for each in differences])
    if lines:
        print("\n" + "\n".join(lines))
    if contents:
        _print_contents(contents["packages"], contents["files"])
    return 0


def _compare_contents(first: str, second: str) -> dict[str, Any]:
    engine, _ = find_engine_and_places()
    one, other = (read_inventory(engine, path) for path in (first, second))
    changes = compare_packages(one.packages, other.packages)
    return {"packages": [asdict(each) for each in changes], "files": asdict(compare_files(one, other))}


def _print_contents(packages: list[dict[str, Any]], files: dict[str, Any]) -> None:
    print(f"\npackages: {len(packages) or 'the same'}")
    for line in show_packages([PackageChange(**each) for each in packages]):
        print(line)
    count = sum(map(len, files.values()))
    print(f"\nfiles: {count or 'the same'}")
    for sign, name in (("-", "removed"), ("+", "added"), ("~", "changed")):
        for line in show_paths(sign, files[name]):
            print(line)


def _show(value: object) -> str:
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    text = "-" if value in (None, "") else str(value)
    first, newline, _ = text.partition("\n")
    return f"{first} …" if newline else first
