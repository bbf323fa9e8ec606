"""`jupyter apptainer image …`: make images."""

from __future__ import annotations

import argparse
from typing import Any

from . import image_build


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `image` and its subcommands."""
    parser = subparsers.add_parser(
        "image",
        help="build: make images of what you have",
        epilog="examples:\n  jupyter apptainer image build analysis.sif --requirements requirements.txt",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    image_build.add_build(commands)
