"""`jupyter apptainer …`: finds the module of a subcommand, runs it, and turns errors into messages and exit codes.

Only the module of the subcommand in use is loaded, so that `--help` is fast. Each module in `COMMANDS` has a function
`add_parser(subparsers)`, which sets `func`, a function of the parsed arguments that returns an exit code.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .. import __version__
from ..errors import (
    ApptainerError,
    BridgeError,
    CommandError,
    EngineError,
    LaunchError,
    PolicyError,
    SpecError,
    TaskError,
)


class CommandRow(NamedTuple):
    """Where a subcommand lives, and its line in the help."""

    module: str
    help: str


COMMANDS: Mapping[str, CommandRow] = {
    "quickstart": CommandRow("quickstart", "engine, starter image and kernel in one step"),
    "doctor": CommandRow("doctor", "check what this machine can do, and say how to fix what it cannot"),
    "engine": CommandRow("engine", "install | info: get an engine, show which one is used"),
    "kernel": CommandRow(
        "kernel", "add | discover | list | show | check | explain | edit | ps | restart | stop | remove"
    ),
    "image": CommandRow(
        "image", "build | pull | push | list | inspect | recipe | diff | freeze | lock | verify | sign | remove | clean"
    ),
    "registry": CommandRow("registry", "login | logout: passwords of image registries"),
    "overlay": CommandRow("overlay", "create | list | info | grow | check | freeze | remove: what kernels write into"),
    "instance": CommandRow("instance", "list | stop | logs: running containers of ours"),
    "gpu": CommandRow("gpu", "what each GPU does, and which notebook uses it"),
    "tasks": CommandRow("tasks", "list | show | log | cancel | retry | clean: builds, pulls and other long work"),
    "gc": CommandRow("gc", "end what crashed kernels left behind"),
}

# 1: the operation failed; 2: the request was wrong. The nearest class above an error counts.
EXIT_CODES: Mapping[type[ApptainerError], int] = {
    EngineError: 1,
    CommandError: 1,
    LaunchError: 1,
    PolicyError: 1,
    BridgeError: 1,
    TaskError: 1,
    SpecError: 2,
}
FAILED = 1
INTERRUPTED = 130
# What a shell reports for a program that SIGPIPE ended.
PIPE_CLOSED = 141

_EPILOG = """\
examples:
  jupyter apptainer quickstart
  jupyter apptainer kernel add torch ~/images/torch.sif --nv auto
  jupyter apptainer kernel check torch
  jupyter apptainer COMMAND --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: this process's) and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    is_debugging = "--debug" in words[: _find_command(words) + 1]
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except SystemExit as end:
        # argparse ends the process itself after --help, --version and a wrong command line.
        return end.code if isinstance(end.code, int) else 0
    except BrokenPipeError:
        # The reader is gone; without this the interpreter would complain about it while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except (ApptainerError, OSError) as error:
        if is_debugging:
            traceback.print_exc()
        print(_render(error), file=sys.stderr)
        return find_exit_code(error)


def find_exit_code(error: Exception) -> int:
    """Return the exit code for an error."""
    codes = (EXIT_CODES[cls] for cls in type(error).__mro__ if cls in EXIT_CODES)
    return next(codes, FAILED)


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """Return the parser with all of `command` and the names of the others."""
    parser = argparse.ArgumentParser(
        prog="jupyter apptainer",
        description="Notebooks that run inside Apptainer containers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"jupyter-apptainer {__version__}")
    parser.add_argument("--debug", action="store_true", help="show where an error comes from (before COMMAND)")
    subparsers = parser.add_subparsers(metavar="COMMAND", dest="command")
    for name, row in COMMANDS.items():
        if name == command:
            importlib.import_module(f"{__package__}.{row.module}").add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=row.help, add_help=False)
    return parser


def _run(words: Sequence[str]) -> int:
    position = _find_command(words)
    command = words[position] if position < len(words) else None
    parser = build_parser(command)
    arguments = parser.parse_args(words)
    if not hasattr(arguments, "func"):
        parser.print_help(sys.stderr)
        return 2
    code: int = arguments.func(arguments)
    return code


def _find_command(words: Sequence[str]) -> int:
    """Return the position of the subcommand: the first word that is no option, for no option before it has a value."""
    return next((index for index, word in enumerate(words) if not word.startswith("-")), len(words))


def _render(error: ApptainerError | OSError) -> str:
    if isinstance(error, ApptainerError):
        # The doubled per cent signs are a matter of Jupyter's dialog, not of a terminal.
        tail = "".join(f"\n  {line}" for line in error.log_tail)
        return f"error: {error}" + (f"\nLast lines:{tail}" if tail else "")
    name = f"{error.filename}: " if error.filename else ""
    return f"error: {name}{error.strerror or error}"


if __name__ == "__main__":
    sys.exit(main())
