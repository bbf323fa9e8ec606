"""`jupyter apptainer gpu [stop PID]`: what each GPU does, which notebook uses it, and memory that nobody owns any more."""

from __future__ import annotations

import argparse
import json
import queue
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ..gpu import GpuReader, GpuReport, Holder, Sampler
from ..gpu.format import describe_devices, describe_holders
from ..gpu.orphans import find_orphan, list_orphans, stop_orphan
from ..gpu.process import read_facts
from ..places import find_places
from ..policy import shows_other_users
from .output import YELLOW, is_yes, make_printable, paint, print_json, print_note, print_table
from .verbs import add_verb

_INTERVAL_S = 2.0
_CLEAR = "\x1b[H\x1b[2J"


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command and its verb."""
    parser = subparsers.add_parser(
        "gpu",
        help="what each GPU does, and which notebook uses it",
        description="Readings of the GPUs that you were given, and the notebooks, containers and programs that use them. "
        "n/a: the device does not tell.",
        epilog="examples:\n  jupyter apptainer gpu\n  jupyter apptainer gpu --watch\n  jupyter apptainer gpu --all --json\n"
        "  jupyter apptainer gpu stop 4711",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print an object; with --watch one on each line")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=_parse_interval,
        const=_INTERVAL_S,
        metavar="SECONDS",
        help=f"look again and again, every SECONDS (default: {_INTERVAL_S:g}), until Ctrl-C",
    )
    parser.add_argument("--all", action="store_true", help="all devices of the machine, not only those given to you")
    parser.set_defaults(func=run)
    verbs = parser.add_subparsers(dest="verb", metavar="[stop PID]")
    stop = add_verb(verbs, "gpu", "stop", "end a process that holds a GPU and that nobody owns any more", "stop 4711")
    stop.add_argument("pid", type=int, metavar="PID", help="process id, as shown by `jupyter apptainer gpu`")
    stop.add_argument("-y", "--yes", action="store_true", help="do not ask")
    stop.set_defaults(func=run_stop)


def run(arguments: argparse.Namespace) -> int:
    """Show the report, once or until interrupted."""
    if arguments.watch is None:
        with GpuReader(show_others=shows_other_users()) as reader:
            report = reader.read(is_all=arguments.all)
        print_json(asdict(report)) if arguments.json else _print_report(report)
        return 0
    try:
        for report in _iter_reports(arguments.watch, is_all=arguments.all):
            if arguments.json:
                print(json.dumps(asdict(report)), flush=True)
            else:
                print(_CLEAR if sys.stdout.isatty() else "", end="")
                _print_report(report)
                print(flush=True)
    except KeyboardInterrupt:
        # The ordinary way out.
        return 0
    return 0


def run_stop(arguments: argparse.Namespace) -> int:
    """End one orphan, after a question."""
    places = find_places()
    with GpuReader(places) as reader:
        holder = find_orphan(reader.read(is_all=True), arguments.pid)
    # From before the question: until it is answered the number may be another process's.
    identity = read_facts(holder.pid).identity
    print_note(f"process {holder.pid} ({make_printable(holder.label)}): {holder.reason}")
    if not arguments.yes and not is_yes(f"End process {holder.pid}?"):
        print_note("Nothing was ended; -y ends without a question.")
        return 1
    is_ended = stop_orphan(places, holder, identity)
    print(f"{'ended' if is_ended else 'could not end'} {holder.pid}")
    return 0 if is_ended else 1


def _iter_reports(interval_s: float, *, is_all: bool) -> Iterator[GpuReport]:
    reports: queue.Queue[GpuReport] = queue.Queue()
    show_others = shows_other_users()
    with Sampler(lambda: GpuReader(show_others=show_others), interval_s, is_all=is_all).watch(reports.put):
        while True:
            yield reports.get()


def _print_report(report: GpuReport) -> None:
    if report.status.code != "ok":
        fix = f"\nHint: {report.status.fix}" if report.status.fix else ""
        print_note(f"{report.status.reason}{fix}")
    if report.devices:
        print_table(*describe_devices(report))
    rows = describe_holders(report)[1]
    if rows:
        print()
        print_table(describe_holders(report)[0], [tuple(map(make_printable, row)) for row in rows])
    for holder in list_orphans(report.holders):
        print(_describe_orphan(holder))
    if report.hidden and report.devices:
        print_note(f"{report.hidden} more on this machine, not given to you; --all shows them")


def _describe_orphan(holder: Holder) -> str:
    text = (
        f"nobody owns process {holder.pid} any more: {holder.reason}; `jupyter apptainer gpu stop {holder.pid}` ends it"
    )
    return paint(text, YELLOW)


def _parse_interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds between 0.1 and 3600")
    return seconds
