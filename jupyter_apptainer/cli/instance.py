"""`jupyter apptainer instance list | stop | logs`: the instances that kernels of ours run in."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..errors import InstanceNotFound
from ..instances.janitor import end_entry
from ..instances.ledger import iter_entries
from ..instances.listing import list_instances
from ..instances.model import LedgerEntry
from ..places import find_places
from .verbs import add_verb

_MIB = 1024 * 1024


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command and its three verbs."""
    parser = subparsers.add_parser(
        "instance",
        help="list, stop and read the logs of instances that kernels run in",
        description="The instances that this program started on this host. `apptainer instance list` shows them too.",
        epilog="examples:\n  jupyter apptainer instance list\n  jupyter apptainer instance stop 'jpa-1f3c*'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    listing = add_verb(
        verbs, "instance", "list", "name, state, start, memory, notebook and image of each", "list", "list --json"
    )
    listing.add_argument("--json", action="store_true", help="print a list of objects")
    listing.set_defaults(func=run_list)
    stop = add_verb(
        verbs,
        "instance",
        "stop",
        "end instances, and the kernels in them",
        "stop jpa-1f3c9a02-5be07c11",
        "stop 'jpa-1f3c*'",
    )
    stop.add_argument("names", nargs="+", metavar="NAME", help="name or pattern, as in 'jpa-1f3c*'")
    stop.set_defaults(func=run_stop)
    logs = add_verb(verbs, "instance", "logs", "what the engine and the kernel's process printed", "logs 'jpa-1f3c*'")
    logs.add_argument("name", metavar="NAME", help="name or pattern")
    logs.set_defaults(func=run_logs)


def run_list(arguments: argparse.Namespace) -> int:
    """Print the table."""
    rows = [row.to_json() for row in list_instances(iter_entries(find_places()))]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        memory = row["memory_bytes"] / _MIB if isinstance(row["memory_bytes"], int) else 0.0
        started = datetime.fromtimestamp(float(str(row["started_at"]))).strftime("%Y-%m-%d %H:%M")
        print(f"{row['name']}  {row['state']:9}  {started}  {memory:6.0f} MiB  {row['label']}  {row['image']}")
    if not rows:
        print("no instances", file=sys.stderr)
    return 0


def run_stop(arguments: argparse.Namespace) -> int:
    """End all that match; 1 where one would not end."""
    places = find_places()
    # All names first: two patterns may fit one instance, and with a wrong name none is ended.
    chosen = {entry.name: entry for pattern in arguments.names for entry in _get_matching(pattern)}
    ok = True
    for entry in chosen.values():
        is_ended = end_entry(places, entry)
        print(f"{'ended' if is_ended else 'could not end'} {entry.name}")
        ok = ok and is_ended
    return 0 if ok else 1


def run_logs(arguments: argparse.Namespace) -> int:
    """Print the logs of one instance, each under its file's name."""
    for entry in _get_matching(arguments.name):
        paths = [Path(folder, name) for folder in entry.directories for name in ("instance.log", "kernel.log")]
        paths += [Path(path) for path in entry.instance.log_paths] if entry.instance else []
        for path in paths:
            if path.is_file() and path.stat().st_size:
                print(f"==> {path} <==")
                print(path.read_text(errors="replace"))
    return 0


def _matches(entry: LedgerEntry, pattern: str) -> bool:
    return fnmatchcase(entry.name, pattern) or fnmatchcase(entry.instance_name, pattern)


def _get_matching(pattern: str) -> list[LedgerEntry]:
    found = [entry for entry in iter_entries(find_places()) if _matches(entry, pattern)]
    if not found:
        raise InstanceNotFound(
            f"no instance of ours is named {pattern!r}", hint="`jupyter apptainer instance list` shows them"
        )
    return found
