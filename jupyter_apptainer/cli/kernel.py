"""`jupyter apptainer kernel …`: container kernels as Jupyter lists them, and as they run.

The command line alone: what a verb does is loaded when it runs, so that help and completion are fast.
"""

from __future__ import annotations

import argparse
from typing import Any

from ..kernels.fields import FIELDS
from .container_options import add_container_options
from .kernel_options import add_scope_options, add_source_options
from .verbs import AnyOrderParser, add_verb, defer

_EXAMPLES = """
examples:
  jupyter apptainer kernel add torch ~/images/torch.sif
  jupyter apptainer kernel check torch
  jupyter apptainer kernel list
"""
_ADD_EXAMPLES = r"""
examples:
  jupyter apptainer kernel add torch ~/images/torch.sif
  jupyter apptainer kernel add stats ./r.sif --language R \
      --command 'R --slave -e IRkernel::main() --args {connection_file}'
  jupyter apptainer kernel add lab ./lab.sif -B /data:/data:ro --overlay ./lab.img --env OMP_NUM_THREADS=4
  jupyter apptainer kernel add box ./r.sif --like ir
  jupyter apptainer kernel add work --from-command 'apptainer exec --nv -B /data ./work.sif python train.py'
  jupyter apptainer kernel add work --from-script job.sh --dry-run
  jupyter apptainer kernel add small ./lab.sif --memory 4G --cpus 2 --pids 512
"""
_EDIT_EXAMPLES = """
Options that can be repeated replace all earlier values, but --env, which adds to them. --unset resources takes all limits away.

examples:
  jupyter apptainer kernel edit torch --image ~/images/torch-2.sif
  jupyter apptainer kernel edit torch --env OMP_NUM_THREADS=8 --unset binds
  jupyter apptainer kernel edit torch --memory 16G --cpus 4
  jupyter apptainer kernel edit torch --bind ~/data --restart analysis.ipynb
"""


def add_parser(subparsers: Any) -> None:
    """Add `kernel` and its subcommands."""
    parser = subparsers.add_parser(
        "kernel",
        help="container kernels: add, discover, list, show, check, explain, edit, remove; ps, stop",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=AnyOrderParser)
    _add_add_parser(commands)
    _add_discover_parser(commands)
    _add_edit_parser(commands)

    listing = add_verb(
        commands, "kernel", "list", "all container kernels, and whether they could start", "list", "list --json"
    )
    listing.set_defaults(func=defer("kernel_commands", "list_kernels"))
    show = add_verb(
        commands, "kernel", "show", "one kernel's settings; values that look secret are hidden", "show torch"
    )
    show.set_defaults(func=defer("kernel_commands", "show_kernel"))
    check = add_verb(
        commands,
        "kernel",
        "check",
        "ask the image whether it can run the kernel, say what is missing (exit code 1)",
        "check torch",
    )
    check.set_defaults(func=defer("kernel_commands", "check_kernel"))
    explain = add_verb(
        commands,
        "kernel",
        "explain",
        "the start of a kernel as a shell script, with the reason for each variable and path; nothing is started",
        "explain torch",
        "explain torch --cwd ~/notebooks > start.sh",
        "explain torch --notebook analysis.ipynb",
    )
    explain.add_argument(
        "--cwd", metavar="DIR", help="the notebook's folder (default: that of --notebook, or this one)"
    )
    explain.add_argument(
        "--notebook",
        metavar="FILE",
        help="a notebook, whose metadata is honoured or refused as at a start of its kernel",
    )
    explain.set_defaults(func=defer("kernel_commands", "explain_start"))
    for command in (show, check, explain):
        command.add_argument("name", metavar="NAME", help="as `kernel list` shows it")
    for command in (listing, show, check, explain):
        command.add_argument("--json", action="store_true", help="print JSON")

    _add_restart_parser(commands)
    _add_running_parsers(commands)
    remove = add_verb(
        commands,
        "kernel",
        "remove",
        "take kernels out of Jupyter's list; images and overlays stay",
        "remove torch",
        "remove -y torch r",
    )
    remove.add_argument("names", metavar="NAME", nargs="+", help="as `kernel list` shows it")
    remove.add_argument("-y", "--yes", action="store_true", help="do not ask")
    remove.set_defaults(func=defer("kernel_commands", "remove_kernels"))


def _add_add_parser(commands: Any) -> None:
    add = commands.add_parser(
        "add",
        help="make a kernel of an image",
        epilog=_ADD_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add.add_argument("name", metavar="NAME", help="letters, digits, dots, dashes, underscores")
    add.add_argument(
        "image",
        metavar="IMAGE",
        nargs="?",
        help="a .sif file or a sandbox folder; may be left out where the source names one",
    )
    add_source_options(add)
    add_container_options(add)
    add.add_argument("--display-name", metavar="TEXT", help="what people see (default: language, version and image)")
    add.add_argument("--language", help="the kernel's language, as Jupyter names it (default: the source's, or python)")
    add_scope_options(add)
    add.add_argument("--json", action="store_true", help="print JSON")
    add.set_defaults(func=defer("kernel_commands", "add_kernel"))


def _add_edit_parser(commands: Any) -> None:
    edit = commands.add_parser(
        "edit",
        help="change a kernel's settings",
        epilog=_EDIT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    edit.add_argument("name", metavar="NAME", help="as `kernel list` shows it")
    edit.add_argument("--image", metavar="IMAGE", help="another image")
    add_container_options(edit)
    edit.add_argument(
        "--unset",
        action="append",
        default=[],
        metavar="FIELD",
        choices=[f for f in FIELDS if f != "image"],
        help="set a field of kernel.json back to its default; can be repeated",
    )
    edit.add_argument("--display-name", metavar="TEXT", help="what people see")
    edit.add_argument(
        "--restart",
        metavar="KERNEL",
        help="then start this running kernel anew with it, in a new container; its variables are lost",
    )
    edit.add_argument("--no-check", action="store_true", help="do not look whether the image can run the kernel")
    edit.set_defaults(func=defer("kernel_commands", "change_kernelspec"))


def _add_discover_parser(commands: Any) -> None:
    parser = add_verb(
        commands,
        "kernel",
        "discover",
        "the kernels that an image brings along, of any language; --add makes container kernels of them",
        "discover ~/images/r.sif",
        "discover ~/images/r.sif --add",
        "discover ~/images/lab.sif --add ir bash --nv false",
    )
    parser.add_argument("image", metavar="IMAGE", help="a .sif file or a sandbox folder")
    parser.add_argument(
        "--add",
        nargs="*",
        metavar="NAME",
        help="add these kernels, by either of their names; without a name all of them",
    )
    add_container_options(parser)
    add_scope_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=defer("kernel_discover", "discover_kernels"))


def _add_restart_parser(commands: Any) -> None:
    parser = add_verb(
        commands,
        "kernel",
        "restart",
        "start a running kernel in a new container, with other settings that its notebook keeps; its variables are lost",
        "restart 1f3c9a02 --image torch.sif --nv true",
        "restart analysis.ipynb --bind data --later",
        "restart analysis.ipynb --unset binds",
    )
    parser.add_argument("kernel", metavar="KERNEL", help="beginning of its id, or its notebook or instance")
    parser.add_argument("--image", metavar="IMAGE", help="another image, among those that your notebooks may choose")
    add_container_options(parser)
    parser.add_argument(
        "--unset",
        action="append",
        default=[],
        choices=[*FIELDS],
        metavar="FIELD",
        help="forget a setting of the notebook",
    )
    parser.add_argument(
        "--later", action="store_true", help="change the notebook only; the next start has the settings"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=defer("kernel_restart", "restart_kernel"))


def _add_running_parsers(commands: Any) -> None:
    ps = add_verb(
        commands,
        "kernel",
        "ps",
        "kernels that run on this host: notebook, memory, server, and how long they may go on without one",
        "ps",
        "ps --json",
    )
    ps.add_argument("--json", action="store_true", help="print JSON; with connection files, for `jupyter console`")
    ps.set_defaults(func=defer("running", "list_running"))
    stop = add_verb(
        commands,
        "kernel",
        "stop",
        "end running kernels; the Jupyter server that has one is asked to shut it down",
        "stop 1f3c9a02",
        "stop 'analysis*.ipynb'",
    )
    stop.add_argument("names", nargs="+", metavar="KERNEL", help="beginning of its id, or its notebook or instance")
    stop.set_defaults(func=defer("running", "stop_kernels"))
