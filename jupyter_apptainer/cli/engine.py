"""`jupyter apptainer engine …`: get an engine, and show which one is used."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from ..config import ApptainerConfig, load_config
from ..engine.candidates import list_candidates
from ..engine.install import METHODS, install_engine
from ..places import find_places
from .output import GREEN, paint, print_json, print_note, print_table
from .progress import show_progress


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `engine` and its subcommands."""
    parser = subparsers.add_parser(
        "engine",
        help="get an engine, show which one is used",
        epilog="examples:\n  jupyter apptainer engine info\n  jupyter apptainer engine install",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    install = commands.add_parser(
        "install",
        help="get an engine if there is none that is new enough",
        description="Get an engine: the distribution's package where we may install it, else its packages unpacked into a "
        "folder of your own, else from conda-forge with the conda or micromamba that you have. No root needed. An engine "
        "that is new enough is left as it is; one that is too old stays until the new one works.",
        epilog="examples:\n  jupyter apptainer engine install\n  jupyter apptainer engine install --method unpacked",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    install.add_argument("--force", action="store_true", help="get a new one even if there is one")
    install.add_argument("--method", choices=METHODS, help="only this way, even if there is an engine")
    install.set_defaults(func=_install)
    info = commands.add_parser(
        "info",
        help="all engines that were found, which one is used, and why",
        description="Show each place where an engine is looked for, in that order, and which one is used. The exit code is "
        "1 where there is none.",
        epilog="examples:\n  jupyter apptainer engine info\n  jupyter apptainer engine info --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    info.add_argument("--json", action="store_true", help="print a list of objects")
    info.set_defaults(func=_info)


def _install(arguments: argparse.Namespace) -> int:
    with show_progress() as on_progress:
        info = install_engine(
            find_places(), on_progress=on_progress, method=arguments.method, is_forced=arguments.force
        )
    print(info.path)
    print_note(f"{info.flavour} {info.version_text} ({info.origin})")
    used = [each for each in _list() if each.is_chosen]
    if used and used[0].path != info.path:
        print_note(f"But {used[0].path} is used: {used[0].reason}.")
    return 0


def _info(arguments: argparse.Namespace) -> int:
    candidates = _list()
    if arguments.json:
        print_json([asdict(candidate) for candidate in candidates])
    else:
        rows = [
            (
                paint("→", GREEN) if each.is_chosen else " ",
                each.origin,
                each.path or "-",
                each.version or "-",
                each.reason,
            )
            for each in candidates
        ]
        print_table(("", "FOUND", "PROGRAM", "VERSION", "WHY"), rows)
    return 0 if any(candidate.is_chosen for candidate in candidates) else 1


def _list() -> tuple[Any, ...]:
    settings = ApptainerConfig(config=load_config())
    return list_candidates(settings.engine_path or None, places=find_places())
