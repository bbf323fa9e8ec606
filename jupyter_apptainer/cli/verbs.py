"""How a verb below a command, as `list` below `kernel`, gets its help: a description, and examples that can be typed."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from typing import Any


class AnyOrderParser(argparse.ArgumentParser):
    """Takes options between the words of a command, also where the last of these may be left out.

    Before Python 3.13, argparse gives up on an optional word as soon as an option comes before it.
    """

    _is_inside = False

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]  # its overloads say no more
        """Called for each subcommand by its group."""
        if self._is_inside:
            return super().parse_known_args(args, namespace)
        self._is_inside = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_inside = False


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


def defer(module: str, name: str) -> Callable[[argparse.Namespace], int]:
    """Return a command that is a function of a module beside this one, which is loaded when it runs."""

    def run(arguments: argparse.Namespace) -> int:
        code: int = getattr(importlib.import_module(f"{__package__}.{module}"), name)(arguments)
        return code

    return run
