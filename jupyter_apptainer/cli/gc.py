"""`jupyter apptainer gc`: end what kernels of ours left behind."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ..config import ApptainerConfig, load_config
from ..images.layering.store import find_store
from ..instances.janitor import Leftover, end_leftover, find_leftovers
from ..kernels.unpacked import find_store as find_copies
from ..places import find_places
from ..tasks.stop import end_strays
from ..tasks.store import clean_old_tasks, iter_tasks


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "gc",
        help="end instances whose server or notebook is gone",
        description="List the instances of ours whose owner is gone, with their processes and folders, and end them. Programs of tasks that were killed "
        "are ended too, old tasks forgotten, and what killed builds and tasks have half made of layers and unpacked copies of images is removed, with "
        "copies of images that have changed or are gone. "
        "Only instances that this program started are looked at; nobody else's are ever touched.",
        epilog="examples:\n  jupyter apptainer gc --dry-run\n  jupyter apptainer gc",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it; 1 where something would not end."""
    places = find_places()
    if not arguments.dry_run:
        settings = ApptainerConfig(config=load_config())
        end_strays(places, {task.id for task in iter_tasks(places) if not task.is_over})
        clean_old_tasks(places, settings)
        find_store(places).remove_leftovers()
        find_copies(settings, places).prune()
    leftovers = find_leftovers(places)
    results = [(leftover, None if arguments.dry_run else end_leftover(places, leftover)) for leftover in leftovers]
    if arguments.json:
        print(json.dumps([_to_json(leftover, is_ended) for leftover, is_ended in results], indent=2))
    else:
        for leftover, is_ended in results:
            print(_describe(leftover, is_ended))
        if not results:
            print("nothing to do", file=sys.stderr)
    return 1 if any(is_ended is False for _, is_ended in results) else 0


def _to_json(leftover: Leftover, is_ended: bool | None) -> dict[str, object]:
    return {
        "name": leftover.entry.name,
        "image": leftover.entry.image,
        "label": leftover.entry.label,
        "reason": leftover.reason,
        "processes": list(leftover.processes),
        "directories": list(leftover.entry.directories),
        "ended": is_ended,
    }


def _describe(leftover: Leftover, is_ended: bool | None) -> str:
    what = {None: "would end", True: "ended", False: "could not end"}[is_ended]
    processes = ", ".join(map(str, leftover.processes)) or "none"
    return f"{what} {leftover.entry.name} ({leftover.entry.image}): {leftover.reason}; processes: {processes}"
