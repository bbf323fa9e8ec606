"""`jupyter apptainer image cache`: what builds have kept, so that later ones need not run it again, and unpacked copies of images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ..images.copies import Copy
from ..images.layering.store import Layer, find_store
from ..overlays.size import format_bytes, parse_size_mib
from ..places import find_places
from .image_settings import load_settings
from .image_unpack import open_store
from .output import make_printable, print_json, print_note, print_table
from .verbs import add_verb

_MIB = 2**20
_SHOWN = 60


def add_cache(commands: Any) -> None:
    """Add `cache` to the commands of `image`."""
    cache = add_verb(
        commands,
        "image",
        "cache",
        "the layers that builds have kept, and unpacked copies of images, the longest unused first",
        "cache",
        "cache --json",
        "cache prune --to 2G",
    )
    cache.add_argument("--json", action="store_true", help="print a list of objects")
    cache.set_defaults(func=_show)
    actions = cache.add_subparsers(metavar="COMMAND")
    prune = add_verb(
        actions,
        "image cache",
        "prune",
        "remove layers and unpacked copies, the longest unused first, until the others fit; none that a build or kernel uses now",
        "prune",
        "prune --to 2G",
        "prune --only copies --all",
    )
    amount = prune.add_mutually_exclusive_group()
    amount.add_argument(
        "--to",
        metavar="SIZE",
        help="of each of the two, as 500M or 2G (default: ApptainerConfig.build_cache_mib and unpacked_images)",
    )
    amount.add_argument("--all", action="store_true", help="remove all")
    prune.add_argument("--only", choices=("layers", "copies"), help="leave the other kind alone")
    prune.add_argument("--json", action="store_true", help="print a list of objects: those that were removed")
    prune.set_defaults(func=_prune)


def _show(arguments: argparse.Namespace) -> int:
    places = find_places()
    layers, store = find_store(places).list_all(), open_store(places)
    copies = store.list_all()
    if arguments.json:
        print_json([*map(_to_json, layers), *(copy.to_json() for copy in copies)])
        return 0
    if not layers and not copies:
        print_note("No layers: `jupyter apptainer image build` keeps some. No unpacked copies of images either.")
        return 0
    if layers:
        print_table(("LAYER", "SIZE", "USED", "STEP"), [_build_row(layer) for layer in layers])
        print_note(f"{_measure(layers)} of {format_bytes(load_settings().build_cache_mib * _MIB)}")
    if copies:
        print_table(("COPY", "SIZE", "USED", "IMAGE"), [_build_copy_row(copy) for copy in copies])
        print_note(f"{_measure_copies(copies)} of {format_bytes(store.limit_bytes)}")
    return 0


def _prune(arguments: argparse.Namespace) -> int:
    limit = 0 if arguments.all else parse_size_mib(arguments.to, least_mib=0) * _MIB if arguments.to else None
    places = find_places()
    store, copies = find_store(places), open_store(places)
    removed: list[Layer] = []
    removed_copies: list[Copy] = []
    if arguments.only != "copies":
        removed = store.prune(load_settings().build_cache_mib * _MIB if limit is None else limit)
    if arguments.only != "layers":
        removed_copies = copies.prune(limit)
    if arguments.json:
        print_json([*map(_to_json, removed), *(copy.to_json() for copy in removed_copies)])
        return 0
    for key in [*(layer.key for layer in removed), *(copy.key for copy in removed_copies)]:
        print(key)
    print_note(f"{_measure(removed)} removed, {_measure(store.list_all())} left")
    if removed_copies or copies.list_all():
        print_note(
            f"unpacked copies: {_measure_copies(removed_copies)} removed, {_measure_copies(copies.list_all())} left"
        )
    return 0


def _build_row(layer: Layer) -> tuple[str, ...]:
    title = make_printable(layer.about.title)
    shown = title if len(title) <= _SHOWN else f"{title[: _SHOWN - 1]}…"
    return (layer.key, format_bytes(layer.about.size_bytes), _format_time(layer.used_at), shown)


def _build_copy_row(copy: Copy) -> tuple[str, ...]:
    image = make_printable(copy.about.image) + ("" if copy.is_current else " (has changed or is gone)")
    return (copy.key, format_bytes(copy.about.size_bytes), _format_time(copy.used_at), image)


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def _to_json(layer: Layer) -> dict[str, object]:
    return {
        "layer": layer.key,
        "path": str(layer.path),
        "size_bytes": layer.about.size_bytes,
        "used_at": layer.used_at,
        "step": layer.about.title,
        "depth": layer.about.depth,
    }


def _measure(layers: Sequence[Layer]) -> str:
    return format_bytes(sum(layer.about.size_bytes for layer in layers))


def _measure_copies(copies: Sequence[Copy]) -> str:
    return format_bytes(sum(copy.about.size_bytes for copy in copies))
