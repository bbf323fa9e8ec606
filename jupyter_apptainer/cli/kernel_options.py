"""Options that several verbs of `jupyter apptainer kernel` have: where a kernel comes from, and where its kernelspec goes."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Add the options; they exclude each other."""
    group = parser.add_argument_group("from what you have")
    sources = group.add_mutually_exclusive_group()
    sources.add_argument(
        "--like", metavar="KERNEL", help="take command, variables and logos of an installed kernel, as ir or bash"
    )
    sources.add_argument(
        "--from-command",
        metavar="LINE",
        help="a line with `apptainer exec` or the like, in one pair of quotes; - reads it",
    )
    sources.add_argument("--from-script", metavar="FILE", help="a batch or shell script with such a line")
    group.add_argument(
        "--force", action="store_true", help="add the kernel although mistakes would change what was meant"
    )
    group.add_argument("-n", "--dry-run", action="store_true", help="show settings and mistakes, add nothing")


def add_scope_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the kernelspec goes, and whether it may replace another."""
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--user", dest="scope", action="store_const", const="user", default="user", help="for your account (default)"
    )
    place.add_argument(
        "--sys-prefix", dest="scope", action="store_const", const="sys-prefix", help="for this Python environment"
    )
    place.add_argument("--prefix", dest="scope", metavar="DIR", type=Path, help="below DIR/share/jupyter/kernels")
    parser.add_argument("--replace", action="store_true", help="overwrite a container kernel of this name")
    parser.add_argument("--no-check", action="store_true", help="do not look whether the image can run the kernel")
