"""`jupyter apptainer overlay …`: what kernels write into, as files that can be made, looked at, enlarged and kept."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from ..config import ApptainerConfig, load_config
from ..engine.locate import EngineInfo, get_engine
from ..errors import ImageLacksPython, SpecError
from ..images.probe import probe_image
from ..kernels.freeze_image import Layers, freeze_image
from ..kernels.overlays import find_overlay_users, mark_image
from ..kernels.running import stop_overlay_users
from ..kernels.spec import PYTHON_COMMAND
from ..overlays.ext3 import MIB
from ..overlays.freeze import freeze_to_layer
from ..overlays.manage import (
    check_overlay_file,
    copy_overlay,
    create_overlay,
    get_ext3_overlay,
    grow_overlay,
    remove_overlay,
)
from ..overlays.mode import choose_mode
from ..overlays.model import OverlayRecord, load_overlay, new_record
from ..overlays.packages import create_packages
from ..overlays.ready import adopt_image
from ..overlays.size import DEFAULT_MIB, format_bytes, parse_size_mib
from ..overlays.status import observe_overlay
from ..places import find_places
from .output import is_yes, print_json, print_note, print_table
from .progress import show_progress
from .verbs import add_verb

_EXAMPLES = """
examples:
  jupyter apptainer overlay create extra.img
  jupyter apptainer kernel edit analysis --overlay extra.img
  jupyter apptainer overlay info extra.img
"""


def add_parser(subparsers: Any) -> None:
    """Add `overlay` and its verbs."""
    parser = subparsers.add_parser(
        "overlay",
        help="layers that kernels write into: create, list, info, grow, check, freeze, remove",
        description="Layers above an image that take what is written: packages, data, settings.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_create(verbs)
    listing = add_verb(
        verbs,
        "overlay",
        "list",
        "the overlays of your kernels and notebooks, how full they are, and who uses them",
        "list",
        "list --json",
    )
    listing.set_defaults(func=_list)
    info = add_verb(verbs, "overlay", "info", "all that is known of one overlay", "info extra.img")
    info.add_argument("file", metavar="FILE", help="the overlay")
    info.set_defaults(func=_info)
    for reading in (listing, info):
        reading.add_argument("--json", action="store_true", help="print JSON")
    grow = add_verb(
        verbs,
        "overlay",
        "grow",
        "make an overlay larger; what is in it stays",
        "grow extra.img +2G",
        "grow extra.img 20G",
        "grow extra.img +2G --stop",
    )
    grow.add_argument("file", metavar="FILE", help="the overlay; nothing may use it meanwhile")
    grow.add_argument("size", metavar="SIZE", help="the new size, or +SIZE for so much more: MiB, or with M, G or T")
    _add_stop(grow)
    grow.set_defaults(func=_grow)
    check = add_verb(
        verbs,
        "overlay",
        "check",
        "check an overlay and repair what a crash has left; a kernel's start does so by itself",
        "check extra.img",
        "check extra.img --image ~/images/analysis-2.sif",
    )
    check.add_argument("file", metavar="FILE", help="the overlay; nothing may use it meanwhile")
    check.add_argument(
        "--image", metavar="IMAGE", help="from now on it belongs to this image: you know that the two fit"
    )
    check.set_defaults(func=_check)
    _add_freeze(verbs)
    remove = add_verb(
        verbs,
        "overlay",
        "remove",
        "delete overlays and all that is in them",
        "remove extra.img",
        "remove -y old.img older.img",
    )
    remove.add_argument("files", nargs="+", metavar="FILE", help="an overlay that nothing uses")
    remove.add_argument("-y", "--yes", action="store_true", help="do not ask")
    remove.set_defaults(func=_remove)


def _add_create(verbs: Any) -> None:
    create = add_verb(
        verbs,
        "overlay",
        "create",
        "make an overlay, which takes only the space that it uses",
        "create extra.img",
        "create extra.img --size 20G --image ~/images/analysis.sif",
        "create copy.img --from extra.img",
        "create packages --packages --image ~/images/analysis.sif",
    )
    create.add_argument("file", metavar="FILE", help="the new overlay")
    create.add_argument(
        "--size", metavar="SIZE", help=f"how large it may get: MiB, or with M, G or T (default: {DEFAULT_MIB // 1024}G)"
    )
    create.add_argument(
        "--image", metavar="IMAGE", help="which image it is for (default: that of the first kernel that uses it)"
    )
    create.add_argument(
        "--mode",
        choices=["auto", "plain", "fakeroot"],
        default="auto",
        help="how it is written to: as you, or as root in a user namespace (default: auto, what the image lets you)",
    )
    kind = create.add_mutually_exclusive_group()
    kind.add_argument("--from", dest="source", metavar="OVERLAY", help="copy this one")
    kind.add_argument(
        "--packages",
        action="store_true",
        help="a folder of Python packages instead of a file: several times faster, for packages alone; needs --image",
    )
    create.set_defaults(func=_create)


def _add_freeze(verbs: Any) -> None:
    freeze = add_verb(
        verbs,
        "overlay",
        "freeze",
        "make a read-only layer of an overlay, or with --image a new image; the overlay stays",
        "freeze extra.img extra.sqsh",
        "freeze extra.img analysis-2.sif --image ~/images/analysis.sif",
    )
    freeze.add_argument("file", metavar="FILE", help="the overlay; no kernel may write to it meanwhile")
    freeze.add_argument("target", metavar="TARGET", help="the new file: a layer for `--overlay TARGET:ro`, or an image")
    freeze.add_argument("--image", metavar="IMAGE", help="make a new image of this one and the overlay")
    _add_stop(freeze)
    freeze.set_defaults(func=_freeze)


def _add_stop(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--stop", action="store_true", help="first stop the kernels that use it; what is in their memory is lost"
    )


def _stop_users(arguments: argparse.Namespace, path: str) -> None:
    for entry in stop_overlay_users(find_places(), path) if arguments.stop else ():
        print_note(f"ended {entry.kernel_id[:8]} {os.path.basename(entry.label)}".rstrip())


def _create(arguments: argparse.Namespace) -> int:
    path = os.path.abspath(arguments.file)
    if arguments.packages and not arguments.image:
        raise SpecError("--packages needs --image: the packages are for that image's Python")
    with show_progress() as tell:
        if arguments.source:
            tell(f"Copying {arguments.source}")
            copy_overlay(arguments.source, path, find_places())
        elif arguments.packages:
            tell(f"Making {path}")
            _create_packages(path, arguments.image)
        else:
            tell(f"Making {path}")
            record = _build_record(arguments)
            size_mib = parse_size_mib(arguments.size) if arguments.size else DEFAULT_MIB
            create_overlay(_get_engine(), path, size_mib, os.environ, record=record)
    print(path)
    print_note(f"Use it: jupyter apptainer kernel edit NAME --overlay {shlex.quote(path)}")
    return 0


def _build_record(arguments: argparse.Namespace) -> OverlayRecord:
    record = new_record()
    if arguments.image:
        mark = mark_image(os.path.abspath(arguments.image))
        mode = choose_mode(_get_engine(), mark.path, os.environ) if arguments.mode == "auto" else arguments.mode
        return replace(record, image=mark.path, fingerprint=mark.fingerprint, mode=mode)
    return record if arguments.mode == "auto" else replace(record, mode=arguments.mode)


def _create_packages(path: str, image: str) -> None:
    engine, places = _get_engine(), find_places()
    mark = mark_image(os.path.abspath(image))
    probe = probe_image(engine, mark.path, PYTHON_COMMAND, places, os.environ)
    if not probe.python:
        raise ImageLacksPython(f"the image {mark.path} has no Python, so it takes no Python packages")
    record = replace(new_record(), image=mark.path, fingerprint=mark.fingerprint)
    create_packages(engine, path, mark.path, probe.python, os.environ, record)


def _list(arguments: argparse.Namespace) -> int:
    places = find_places()
    users = find_overlay_users(places, os.environ)
    known = {str(path): () for path in sorted(places.overlays.glob("*.img"))} if places.overlays.is_dir() else {}
    rows = [asdict(observe_overlay(path, places, names)) for path, names in {**known, **users}.items()]
    if arguments.json:
        print_json(rows)
        return 0
    if not rows:
        print_note("There is no overlay yet: `jupyter apptainer overlay create FILE` makes one.")
        return 0
    table = [
        (
            row["path"],
            str(row["kind"]),
            _format_size(row),
            ", ".join(row["kernels"]) or row["origin"] or "-",
            str(row["state"]),
        )
        for row in rows
    ]
    print_table(("FILE", "KIND", "USED", "FOR", "STATE"), table)
    return 0


def _info(arguments: argparse.Namespace) -> int:
    places = find_places()
    path = os.path.abspath(arguments.file)
    load_overlay(path)
    row = asdict(observe_overlay(path, places, find_overlay_users(places, os.environ).get(path, ())))
    if arguments.json:
        print_json(row)
        return 0
    print(f"{row['path']}: {row['kind']}, {row['state']}")
    for title, value in (
        ("size", _format_size(row)),
        ("on the disk", format_bytes(row["allocated_bytes"]) if row["allocated_bytes"] is not None else None),
        ("free files", row["free_inodes"]),
        ("mode", row["mode"] or "settled when a kernel first writes to it"),
        ("image", row["image"] or "that of the first kernel that uses it"),
        ("for", row["origin"]),
        ("made by", row["created_by"]),
        ("kernels", ", ".join(row["kernels"])),
        ("used by", row["holder"]),
    ):
        if value:
            print(f"  {title:11} {value}")
    if row["warning"]:
        print_note(f"warning: {row['warning']}")
    return 0


def _grow(arguments: argparse.Namespace) -> int:
    path = os.path.abspath(arguments.file)
    _stop_users(arguments, path)
    if arguments.size.startswith("+"):
        size_mib = get_ext3_overlay(path).size_bytes // MIB + parse_size_mib(arguments.size[1:], least_mib=1)
    else:
        size_mib = parse_size_mib(arguments.size)
    with show_progress() as tell:
        overlay = grow_overlay(_get_engine(), path, size_mib, find_places(), on_progress=tell)
    print(f"{path}: {format_bytes(overlay.size_bytes)}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    path = os.path.abspath(arguments.file)
    if load_overlay(path).kind == "ext3":
        with show_progress() as tell:
            result = check_overlay_file(_get_engine(), path, find_places(), on_progress=tell)
        print(f"{path}: {'clean' if result.was_clean else 'repaired'}")
        if not result.was_clean:
            print_note("\n".join(result.report))
    elif not arguments.image:
        get_ext3_overlay(path)
    if arguments.image:
        mark = mark_image(os.path.abspath(arguments.image))
        adopt_image(path, mark)
        print(f"{path}: belongs to {mark.path}")
    return 0


def _freeze(arguments: argparse.Namespace) -> int:
    path, target = os.path.abspath(arguments.file), os.path.abspath(arguments.target)
    engine, places = _get_engine(), find_places()
    _stop_users(arguments, path)
    with show_progress() as tell:
        if arguments.image:
            image = os.path.abspath(arguments.image)
            mark_image(image)
            freeze_image(engine, places, Layers(image, (path,)), target, os.environ, on_progress=tell)
        else:
            freeze_to_layer(engine, path, target, places, on_progress=tell)
    print(target)
    if not arguments.image:
        print_note(f"Use it: jupyter apptainer kernel edit NAME --overlay {shlex.quote(target)}:ro")
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    places = find_places()
    paths = [os.path.abspath(file) for file in arguments.files]
    users = find_overlay_users(places, os.environ)
    for path in paths:
        load_overlay(path)
        if users.get(path):
            print_note(f"{path} is an overlay of the kernel {', '.join(users[path])}.")
    if not arguments.yes and not is_yes(f"Delete {', '.join(paths)} and all that is in it?"):
        print_note(f"{', '.join(paths)}: not deleted; -y deletes without a question.")
        return 1
    for path in paths:
        remove_overlay(path, places)
        print(path)
    return 0


def _format_size(row: Mapping[str, Any]) -> str:
    if row["used_fraction"] is None:
        return format_bytes(row["size_bytes"]) if row["size_bytes"] else "-"
    return f"{row['used_fraction'] * 100:.0f} % of {format_bytes(row['size_bytes'])}"


def _get_engine() -> EngineInfo:
    return get_engine(ApptainerConfig(config=load_config()).engine_path or None)
