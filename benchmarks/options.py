"""What the programs of this folder have in common: their options, and that they refuse a machine that is not quiet."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jupyter_apptainer.places import find_places

from .machine import find_disturbances


def build_parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser with what each program has: --json."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value that was measured")
    return parser


def add_image(parser: argparse.ArgumentParser, what: str = "a SIF or sandbox") -> None:
    """Add --image."""
    starter = find_places().images / "starter.sif"
    parser.add_argument("--image", type=Path, default=starter, help=f"{what}; default: the starter image")


def add_rounds(parser: argparse.ArgumentParser, default: int = 15) -> None:
    """Add --rounds."""
    explanation = f"how often everything is measured; default: {default}"
    parser.add_argument("-n", "--rounds", type=_read_count, default=default, help=explanation)


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add the options of programs that call `refuse_disturbances`."""
    parser.add_argument("--engine", help="the apptainer or singularity program; default: the one that kernels use")
    parser.add_argument("--force", action="store_true", help="measure although the machine is busy")


def _read_count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return count


def refuse_disturbances(*, is_forced: bool) -> list[str]:
    """Name what else is at work and return it; ends the program with status 1 if there is any, unless that is forced."""
    found = find_disturbances()
    for line in found:
        say(line)
    if found and not is_forced:
        say("this machine is not quiet; end these, or measure all the same with --force")
        raise SystemExit(1)
    return found


def say(text: str) -> None:
    """Tell how far it is; results go to stdout."""
    print(text, file=sys.stderr)
