"""`jupyter apptainer image …`: the images of this account. What takes an image in or out of it has modules of its own."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..errors import ImageNotFound
from ..images.build_record import BuildRecord, read_record
from ..images.catalogue import (
    Image,
    find_image,
    list_images,
    load_image,
)
from ..images.cleaning import clean_engine_cache, clean_images
from ..images.copies import Copy
from ..images.signing import sign_image, verify_image
from ..kernels.usage import find_usage, map_kernels_to_images, remove_image
from ..places import find_places
from . import (
    image_build,
    image_cache,
    image_diff,
    image_freeze,
    image_lock,
    image_packages,
    image_transfer,
    image_unpack,
)
from .image_settings import find_engine_and_places, find_folders
from .output import is_yes, print_json, print_note, print_table
from .verbs import add_verb

_MIB = 1024 * 1024
_IMAGE = "a .sif file, an unpacked image, or the URI of an image that was pulled"


def add_parser(subparsers: Any) -> None:
    """Add `image` and its subcommands."""
    parser = subparsers.add_parser(
        "image",
        help="images: build, fetch, list, inspect, compare, sign, send, remove",
        description="The images of this account. Reading them starts nothing, not even the engine.",
        epilog="examples:\n  jupyter apptainer image pull docker://python:3.12-slim\n  jupyter apptainer image build analysis.sif --requirements requirements.txt\n  jupyter apptainer image list",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    image_build.add_build(commands)
    _add_reading_verbs(commands)
    image_packages.add_packages(commands)
    image_diff.add_diff(commands)
    _add_signing_verbs(commands)
    image_freeze.add_freeze(commands)
    image_lock.add_lock(commands)
    image_transfer.add_verbs(commands)
    image_unpack.add_unpack(commands)
    _add_removing_verbs(commands)
    image_cache.add_cache(commands)


def _add_reading_verbs(commands: Any) -> None:
    listing = add_verb(
        commands,
        "image",
        "list",
        "images in your folders and of your kernels",
        "list",
        "list . --json",
        "list /data/images",
    )
    listing.add_argument(
        "folders", metavar="DIR", nargs="*", help="look into these as well as into ApptainerConfig.image_dirs"
    )
    listing.set_defaults(func=_list)
    inspect = add_verb(
        commands,
        "image",
        "inspect",
        "all that an image says about itself, and who uses it",
        "inspect lab.sif",
        "inspect lab.sif --json",
    )
    inspect.set_defaults(func=_inspect)
    recipe = add_verb(
        commands,
        "image",
        "recipe",
        "print the definition file that an image was built from",
        "recipe lab.sif > lab.def",
    )
    recipe.set_defaults(func=_recipe)
    for command in (inspect, recipe):
        command.add_argument("image", metavar="IMG", help=_IMAGE)
    for command in (listing, inspect, recipe):
        command.add_argument("--json", action="store_true", help="print JSON")


def _add_signing_verbs(commands: Any) -> None:
    verify = add_verb(
        commands,
        "image",
        "verify",
        "check who signed an image, and that it is as it was signed",
        "verify lab.sif",
        "verify --local lab.sif",
        "verify --lock lab.lock.json lab.sif",
    )
    verify.add_argument("image", metavar="IMG", help=_IMAGE)
    verify.add_argument("--local", action="store_true", help="know the keys of this machine only; ask no key server")
    verify.add_argument(
        "--lock",
        metavar="FILE",
        help="instead, check that it is the image of a lock file or notebook, or say what differs",
    )
    verify.add_argument("--json", action="store_true", help="print a list of objects, one for each signature")
    verify.set_defaults(func=_verify)
    sign = add_verb(
        commands,
        "image",
        "sign",
        "sign an image with a key of yours; the passphrase is asked for, or read from standard input",
        "sign lab.sif",
        "sign lab.sif --key 1",
    )
    sign.add_argument("image", metavar="IMG", help=_IMAGE)
    sign.add_argument(
        "--key", type=int, metavar="N", help="which key, as `apptainer key list --secret` counts (default: 0)"
    )
    sign.set_defaults(func=_sign)


def _add_removing_verbs(commands: Any) -> None:
    remove = add_verb(
        commands,
        "image",
        "remove",
        "delete images; refused while a kernel uses one",
        "remove old.sif",
        "remove -y old.sif older.sif",
    )
    remove.add_argument("images", metavar="IMG", nargs="+", help=_IMAGE)
    remove.add_argument("-y", "--yes", action="store_true", help="do not ask")
    remove.add_argument("--force", action="store_true", help="also those that kernelspecs name; never those in use now")
    remove.set_defaults(func=_remove)
    clean = add_verb(
        commands,
        "image",
        "clean",
        "remove half-made files of pulls and builds that were killed, and what is kept about images that are gone; no image",
        "clean --dry-run",
        "clean --engine-cache",
    )
    clean.add_argument("-n", "--dry-run", action="store_true", help="only say what would be removed")
    clean.add_argument("--engine-cache", action="store_true", help="empty the engine's own cache of layers too")
    clean.add_argument("--json", action="store_true", help="print a list of objects")
    clean.set_defaults(func=_clean)


# --- reading


def _list(arguments: argparse.Namespace) -> int:
    places = find_places()
    folders = [*find_folders(places), *(Path(os.path.abspath(folder)) for folder in arguments.folders)]
    kernels = map_kernels_to_images(places, os.environ)
    images = list_images(places, folders, kernels.values())
    users = {image.path: _find_kernels(image, kernels) for image in images}
    copies = {copy.about.image: copy for copy in image_unpack.open_store(places).list_all() if copy.is_current}
    if arguments.json:
        print_json(
            [
                {**image.to_json(), "kernels": users[image.path], "unpacked": _show_copy(image, copies)}
                for image in images
            ]
        )
        return 0
    if not images:
        looked = ", ".join(map(str, folders))
        print_note(f"No images in {looked}: `jupyter apptainer image pull URI` fetches one.")
        return 0
    headings: tuple[str, ...]
    headings = ("IMAGE", "SIZE", "MODIFIED", "PYTHON", "IPYKERNEL", "COMPRESSION", "SIGNED", "KERNELS", "ORIGIN")
    rows: list[tuple[str, ...]] = [_build_row(image, users[image.path]) for image in images]
    if copies:
        headings = (*headings[:2], "UNPACKED", *headings[2:])
        found = [copies.get(os.path.realpath(image.path)) for image in images]
        sizes = [_format_size(copy.about.size_bytes) if copy else "-" for copy in found]
        rows = [(*row[:2], size, *row[2:]) for row, size in zip(rows, sizes, strict=True)]
    print_table(headings, rows)
    return 0


def _show_copy(image: Image, copies: Mapping[str, Copy]) -> dict[str, object] | None:
    copy = copies.get(os.path.realpath(image.path))
    return copy.to_json() if copy else None


def _find_kernels(image: Image, kernels: dict[str, str]) -> list[str]:
    real = os.path.realpath(image.path)
    return [name for name, path in kernels.items() if os.path.realpath(path) == real]


def _build_row(image: Image, kernels: list[str]) -> tuple[str, ...]:
    modified = datetime.fromtimestamp(image.modified_at).strftime("%Y-%m-%d") if image.modified_at else "-"
    return (
        image.path,
        _format_size(image.size_bytes),
        modified,
        image.python or "-",
        image.ipykernel or "-",
        image.content.compression or image.content.file_system or "-",
        "yes" if image.content.signatures else "no",
        ",".join(kernels) or "-",
        image.problem or image.origin or "-",
    )


def _inspect(arguments: argparse.Namespace) -> int:
    places = find_places()
    image = load_image(places, find_image(places, arguments.image))
    usage = find_usage(image.path, places, os.environ)
    record = read_record(image.path) if image.kind == "sif" else None
    copy = image_unpack.find_copy(image_unpack.open_store(places), image.path)
    if arguments.json:
        more = {
            "kernels": list(usage.kernels),
            "running": list(usage.running),
            "build": record.to_json() if record else None,
            "unpacked": copy.to_json() if copy else None,
        }
        print_json({**image.to_json(), **more})
        return 0
    unpacked = [("unpacked", image_unpack.describe_copy(copy))] if copy else []
    for name, text in [*_describe(image), *unpacked, *_describe_build(record)]:
        print(f"{name:13} {text}")
    for name, words in (("kernels", usage.kernels), ("in use by", usage.running)):
        if words:
            print(f"{name:13} {', '.join(words)}")
    for name, text in image.content.labels.items():
        print(f"{'label':13} {name}: {text}")
    if image.content.help:
        print(f"help\n{image.content.help}")
    return 0


def _describe(image: Image) -> list[tuple[str, str]]:
    content, probe = image.content, image.probe
    created = datetime.fromtimestamp(content.created_at).strftime("%Y-%m-%d %H:%M") if content.created_at else None
    blocks = f" in blocks of {content.block_bytes // 1024} KiB" if content.block_bytes else ""
    overlays = ", ".join(map(_format_size, content.overlay_bytes))
    python = f"{probe.python_version} ({probe.python})" if probe and probe.python else image.python
    rows = [
        ("image", image.path),
        ("kind", image.kind),
        ("size", _format_size(image.size_bytes)),
        ("created", created),
        ("architecture", content.architecture),
        ("origin", image.origin),
        ("digest", image.digest),
        ("compression", f"{content.compression}{blocks}" if content.compression else None),
        ("signed by", ", ".join(dict.fromkeys(each.fingerprint or "unknown" for each in content.signatures))),
        ("overlay", overlays and f"{overlays} embedded"),
        ("apps", ", ".join(content.apps)),
        ("python", python or ("not known: `jupyter apptainer kernel check` asks it" if probe is None else "none")),
        ("ipykernel", (image.ipykernel or "none") if image.python else None),
    ]
    return [(name, text) for name, text in rows if text]


def _describe_build(record: BuildRecord | None) -> list[tuple[str, str]]:
    if record is None:
        return []
    rows = [("built with", f"{record.made_with}, {record.engine}")]
    rows += [("base", f"{name} {digest}".strip()) for name, digest in record.bases.items()]
    epoch = record.epoch
    times = datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC") if epoch is not None else ""
    return rows + ([("times until", f"{times}: it can be built again byte for byte")] if times else [])


def _format_size(size: int) -> str:
    return f"{size / _MIB:.1f} MiB" if size else "-"


def _recipe(arguments: argparse.Namespace) -> int:
    places = find_places()
    image = load_image(places, find_image(places, arguments.image))
    definition = image.content.definition
    if arguments.json:
        print_json({"path": image.path, "definition": definition})
    elif definition is None:
        raise ImageNotFound(f"the image {image.path} does not say what it was built from", hint="ask its maker")
    else:
        print(definition.rstrip("\n"))
    return 0


# --- signatures


def _verify(arguments: argparse.Namespace) -> int:
    if arguments.lock:
        return image_lock.verify_lock(arguments.image, arguments.lock, is_json=arguments.json)
    engine, places = find_engine_and_places()
    image = find_image(places, arguments.image)
    signers = verify_image(engine, image, os.environ, is_local=arguments.local)
    if arguments.json:
        print_json([asdict(signer) for signer in signers])
        return 0
    for signer in signers:
        where = "key known here" if signer.is_local else "key from a key server: check its fingerprint with the maker"
        print(f"signed by {signer.name}, {signer.fingerprint} ({where})")
    return 0


def _sign(arguments: argparse.Namespace) -> int:
    engine, places = find_engine_and_places()
    image = find_image(places, arguments.image)
    if sys.stdin.isatty():
        passphrase = getpass.getpass("Passphrase of the key (empty if it has none): ")
    else:
        passphrase = sys.stdin.readline().rstrip("\n")
    sign_image(engine, places, image, os.environ, key_index=arguments.key, passphrase=passphrase)
    print(image)
    return 0


# --- removing


def _remove(arguments: argparse.Namespace) -> int:
    places = find_places()
    paths = [find_image(places, name) for name in arguments.images]
    if not arguments.yes and not is_yes(f"Delete {', '.join(paths)}?"):
        print_note("Nothing was deleted; -y deletes without a question.")
        return 1
    for path in paths:
        size = remove_image(path, places, os.environ, is_forced=arguments.force)
        print(path)
        if size:
            print_note(f"{_format_size(size)} given back")
    for copy in image_unpack.open_store(places).drop_stale():
        print_note(f"{_format_size(copy.about.size_bytes)} of an unpacked copy given back")
    return 0


def _clean(arguments: argparse.Namespace) -> int:
    places = find_places()
    found = clean_images(places, find_folders(places), copies=image_unpack.open_store(places), is_dry=arguments.dry_run)
    if arguments.json:
        print_json([asdict(leftover) for leftover in found])
    else:
        for leftover in found:
            print(f"{leftover.path}: {leftover.why}")
        if not found:
            print_note("nothing to remove")
    if arguments.engine_cache and not arguments.dry_run:
        engine, _ = find_engine_and_places()
        clean_engine_cache(engine, os.environ)
        print_note("the engine's cache is empty")
    return 0
