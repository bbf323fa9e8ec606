"""`jupyter apptainer doctor`: what this machine can do, and the command that mends what it cannot."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from typing import Any

from ..config import ApptainerConfig, load_config
from ..doctor import DoctorReport, run_doctor
from ..engine.host import Probe
from ..places import find_places
from .output import GREEN, RED, YELLOW, paint, print_json

_MARKS = {"ok": GREEN, "warn": YELLOW, "fail": RED}


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "doctor",
        help="check what this machine can do, and say how to fix what it cannot",
        description="Try everything that a container kernel needs: engine, user namespaces, FUSE, programs, ids, GPU, "
        "cgroups, disks, settings; look for leftovers; then start a container, import ipykernel in it and end it. "
        "Nothing is changed. The exit code is 1 where something would keep kernels from starting.",
        epilog="examples:\n  jupyter apptainer doctor\n  jupyter apptainer doctor --image torch.sif\n"
        "  jupyter apptainer doctor --json | jq '.probes[] | select(.status != \"ok\")'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--image", metavar="IMG", help="the image to try at the end (default: one of your kernels')")
    parser.add_argument("--json", action="store_true", help="print one object: status, duration_s, probes")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it; 1 where any check failed."""
    settings = ApptainerConfig(config=load_config())
    report = run_doctor(settings.engine_path or None, find_places(), arguments.image, settings=settings)
    if arguments.json:
        print_json(report.to_json())
    else:
        _print_report(report)
    return 1 if report.status == "fail" else 0


def _print_report(report: DoctorReport) -> None:
    name_width = max(len(probe.name) for probe in report.probes)
    for probe in report.probes:
        print("\n".join(_format_lines(probe, name_width)))
    counts = [sum(probe.status == status for probe in report.probes) for status in ("ok", "warn", "fail")]
    ok, warnings, failures = counts
    print(f"{ok} ok, {warnings} with a warning, {failures} failed, in {report.duration_s:.1f} s", file=sys.stderr)


def _format_lines(probe: Probe, name_width: int) -> list[str]:
    """Status, name and detail in columns, folded to a terminal's width; the fix is on a line of its own, never folded."""
    indent = 6 + name_width + 2
    lines = [probe.detail]
    if sys.stdout.isatty():
        lines = textwrap.wrap(probe.detail, max(40, shutil.get_terminal_size().columns - indent)) or [""]
    mark = paint(probe.status.ljust(4), _MARKS[probe.status])
    shown = [f"{mark}  {probe.name.ljust(name_width)}  {lines[0]}", *(" " * indent + line for line in lines[1:])]
    if probe.fix and probe.status != "ok":
        shown.append(" " * indent + f"fix: {paint(probe.fix, '1')}")
    return shown
