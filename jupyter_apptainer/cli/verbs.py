"""How a verb below a command, as `list` below `kernel`, gets its help: a description, and examples that can be typed."""

from __future__ import annotations

import argparse
from typing import Any


def add_verb(commands: Any, group: str, name: str, text: str, *examples: str) -> argparse.ArgumentParser:
    """Add `jupyter apptainer GROUP NAME`. text: its line in the help. examples: what stands behind the group's name."""
    lines = "".join(f"\n  jupyter apptainer {group} {example}" for example in examples)
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"examples:{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser
