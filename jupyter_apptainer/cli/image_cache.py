"""`jupyter apptainer image cache`: what builds have kept, so that later ones need not run it again."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ..images.layering.store import Layer, find_store
from ..overlays.size import format_bytes, parse_size_mib
from ..places import find_places
from .image_settings import load_settings
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
        "the layers that builds have kept, the longest unused first",
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
        "remove layers, the longest unused first, until the others fit; none that a build uses now",
        "prune",
        "prune --to 2G",
        "prune --all",
    )
    amount = prune.add_mutually_exclusive_group()
    amount.add_argument("--to", metavar="SIZE", help="as 500M or 2G (default: ApptainerConfig.build_cache_mib)")
    amount.add_argument("--all", action="store_true", help="remove all")
    prune.add_argument("--json", action="store_true", help="print a list of objects: those that were removed")
    prune.set_defaults(func=_prune)


def _show(arguments: argparse.Namespace) -> int:
    layers = find_store(find_places()).list_all()
    if arguments.json:
        print_json([_to_json(layer) for layer in layers])
        return 0
    if not layers:
        print_note("No layers: `jupyter apptainer image build` keeps some.")
        return 0
    print_table(("LAYER", "SIZE", "USED", "STEP"), [_build_row(layer) for layer in layers])
    limit = load_settings().build_cache_mib
    print_note(f"{_measure(layers)} of {format_bytes(limit * _MIB)}")
    return 0


def _prune(arguments: argparse.Namespace) -> int:
    limit_mib = load_settings().build_cache_mib
    if arguments.all:
        limit_mib = 0
    elif arguments.to:
        limit_mib = parse_size_mib(arguments.to, least_mib=0)
    store = find_store(find_places())
    removed = store.prune(limit_mib * _MIB)
    if arguments.json:
        print_json([_to_json(layer) for layer in removed])
        return 0
    for layer in removed:
        print(layer.key)
    left = store.list_all()
    print_note(f"{_measure(removed)} removed, {_measure(left)} left")
    return 0


def _build_row(layer: Layer) -> tuple[str, ...]:
    used = datetime.fromtimestamp(layer.used_at).strftime("%Y-%m-%d %H:%M")
    title = make_printable(layer.about.title)
    shown = title if len(title) <= _SHOWN else f"{title[: _SHOWN - 1]}…"
    return (layer.key, format_bytes(layer.about.size_bytes), used, shown)


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
