"""`jupyter apptainer kernel …`: container kernels as Jupyter lists them."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from dataclasses import asdict
from typing import Any

from ..config import ApptainerConfig, load_config
from ..engine.environment import is_bending
from ..errors import SpecError
from ..kernels.describe import describe_kernelspec, hide_secrets
from ..kernels.explain import build_report, render_plan
from ..kernels.fields import FIELDS
from ..kernels.health import Finding, check_kernelspec
from ..kernels.kernelspecs import (
    Kernelspec,
    build_display_name,
    check_name,
    edit_kernelspec,
    get_kernelspec,
    iter_kernelspecs,
    remove_kernelspec,
)
from ..kernels.overlays import find_overlay_users
from ..kernels.prepare import prepare_launch
from ..kernels.spec import parse_container_spec, resolve_paths
from ..places import find_places
from .container_options import add_container_options, build_config
from .kernel_discover import add_discover_parser
from .kernel_restart import add_restart_verb, restart_edited
from .kernel_sources import add_source_options, count_errors, load_source, print_remarks
from .kernel_write import add_scope_options, merge_config, probe_spec, write_kernel
from .output import GREEN, RED, YELLOW, is_yes, paint, print_json, print_note, print_table
from .progress import show_progress
from .running import add_running_verbs
from .verbs import AnyOrderParser, add_verb

_MARKS = {"ok": ("✓", GREEN), "unknown": ("?", YELLOW), "fail": ("✗", RED)}

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
    add_discover_parser(commands)
    _add_edit_parser(commands)

    listing = add_verb(
        commands, "kernel", "list", "all container kernels, and whether they could start", "list", "list --json"
    )
    listing.set_defaults(func=_list)
    show = add_verb(
        commands, "kernel", "show", "one kernel's settings; values that look secret are hidden", "show torch"
    )
    show.set_defaults(func=_show)
    check = add_verb(
        commands,
        "kernel",
        "check",
        "ask the image whether it can run the kernel, say what is missing (exit code 1)",
        "check torch",
    )
    check.set_defaults(func=_check)
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
    explain.set_defaults(func=_explain)
    for command in (show, check, explain):
        command.add_argument("name", metavar="NAME", help="as `kernel list` shows it")
    for command in (listing, show, check, explain):
        command.add_argument("--json", action="store_true", help="print JSON")

    add_restart_verb(commands)
    add_running_verbs(commands)
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
    remove.set_defaults(func=_remove)


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
    add.set_defaults(func=_add)


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
    edit.set_defaults(func=_edit)


def _add(arguments: argparse.Namespace) -> int:
    name = check_name(arguments.name)
    given = build_config(arguments)
    source = load_source(arguments, frozenset(given))
    if not arguments.json:
        print_remarks(source)
    if "image" not in given and "image" not in source.config and not source.remarks.has_errors:
        raise SpecError("no IMAGE was given", hint="`jupyter apptainer kernel add NAME IMAGE`")
    is_refused = source.remarks.has_errors and not arguments.force
    config = merge_config(source.config, given)
    if arguments.dry_run and not is_refused:
        parse_container_spec(config, origin=source.origin or "the command line")
    folder = None if is_refused or arguments.dry_run else write_kernel(name, given, source, arguments)
    if arguments.json:
        print_json(
            {
                "name": name,
                "folder": folder and str(folder),
                "config": hide_secrets(config),
                "remarks": [vars(remark) for remark in source.remarks],
            }
        )
    elif folder:
        print(folder)
    elif arguments.dry_run:
        for field, value in hide_secrets(config).items():
            print(f"{field:11} {_format(value)}")
    if is_refused:
        print_note(
            f"{name}: not added, because of {count_errors(source)}: correct what is marked as error, or add --force."
        )
    return 2 if is_refused else 0


def _edit(arguments: argparse.Namespace) -> int:
    found = get_kernelspec(arguments.name)
    changes = build_config(arguments)
    for field in changes.keys() & {"env", "resources"}:
        changes[field] = {**dict(found.config.get(field) or {}), **dict(changes[field])}  # type: ignore[call-overload]  # checked when written
    changes |= dict.fromkeys(arguments.unset)
    merged = {name: value for name, value in {**found.config, **changes}.items() if value is not None}
    spec = parse_container_spec(merged, origin=f"the kernel {arguments.name}")
    debugger = None
    display_name = arguments.display_name
    if changes.keys() & {"image", "command"} and not arguments.no_check:
        probe = probe_spec(resolve_paths(spec, found.folder, os.environ))
        debugger = bool(probe and probe.has_debugger)
        if display_name is None and str(found.config.get("image")).rpartition("/")[2] in found.display_name:
            version = probe.python_version if probe else None
            display_name = build_display_name(spec, name=found.name, language=found.language, version=version)
    print(edit_kernelspec(arguments.name, changes, display_name=display_name, debugger=debugger))
    return restart_edited(arguments.restart) if arguments.restart else 0


def _list(arguments: argparse.Namespace) -> int:
    kernels = [(found, _find_findings(found)) for found in iter_kernelspecs()]
    if arguments.json:
        print_json([describe_kernelspec(found, findings) for found, findings in kernels])
        return 0
    if not kernels:
        print_note("There is no container kernel yet: `jupyter apptainer kernel add NAME IMAGE` makes one.")
        return 0
    rows = []
    for found, findings in kernels:
        worst = _find_worst(findings)
        notes = [finding.note for finding in findings if finding.note]
        text = ", ".join(["ready", *notes]) if worst.status == "ok" else f"{worst.topic}: {worst.text}"
        image = str(found.config.get("image", ""))
        rows.append((found.name, found.display_name, image, f"{_mark(worst)} {text}"))
    print_table(("NAME", "DISPLAY NAME", "IMAGE", "STATE"), rows)
    return 0


def _show(arguments: argparse.Namespace) -> int:
    found = get_kernelspec(arguments.name)
    findings = _find_findings(found)
    if arguments.json:
        print_json(describe_kernelspec(found, findings))
        return 0
    print(f"{found.name}: {found.display_name}")
    print(f"  folder    {found.folder}")
    print(f"  language  {found.language}")
    for name, value in hide_secrets(found.config).items():
        print(f"  {name:9} {_format(value)}")
    _print_findings(findings)
    return 0


def _check(arguments: argparse.Namespace) -> int:
    found = get_kernelspec(arguments.name)
    findings = _find_findings(found, is_deep=True)
    if arguments.json:
        print_json(describe_kernelspec(found, findings))
    else:
        _print_findings(findings)
    return int(any(finding.status == "fail" for finding in findings))


def _explain(arguments: argparse.Namespace) -> int:
    found = get_kernelspec(arguments.name)
    notebook = os.path.abspath(arguments.notebook) if arguments.notebook else None
    if notebook and not os.path.exists(notebook):
        raise SpecError(f"there is no notebook {notebook}")
    preparation = prepare_launch(
        found.config,
        settings=_load_settings(),
        kernel_id=found.name,
        cwd=os.path.abspath(arguments.cwd or os.path.dirname(notebook or "")),
        environ=os.environ,
        base_dir=str(found.folder),
        kernelspec_env=found.env,
        notebook=notebook,
        is_dry=True,
    )
    plan, wishes = preparation.plan, preparation.settings
    if arguments.json:
        print_json({**build_report(plan), "settings": [asdict(setting) for setting in wishes]})
    else:
        sys.stdout.write(render_plan(plan, wishes, unset=sorted(name for name in os.environ if is_bending(name))))
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    found = [get_kernelspec(name) for name in arguments.names]
    names = ", ".join(known.name for known in found)
    if not arguments.yes and not is_yes(f"Remove {names}?"):
        print_note(f"{names}: not removed; -y removes without a question.")
        return 1
    overlays = find_overlay_users(find_places(), os.environ)
    for known in found:
        folder = remove_kernelspec(known.name)
        print(folder)
        for path in (path for path, users in overlays.items() if known.name in users and os.path.exists(path)):
            print_note(f"Its overlay stays: `jupyter apptainer overlay remove {shlex.quote(path)}` deletes it.")
        if folder.exists():
            print_note(f"{folder} stays: it holds files that are not the kernel's.")
    return 0


def _load_settings() -> ApptainerConfig:
    return ApptainerConfig(config=load_config())


def _find_findings(found: Kernelspec, *, is_deep: bool = False) -> tuple[Finding, ...]:
    engine_path = _load_settings().engine_path or None
    if not is_deep:
        return check_kernelspec(found, find_places(), os.environ, engine_path=engine_path)
    with show_progress() as on_progress:
        return check_kernelspec(
            found, find_places(), os.environ, engine_path=engine_path, is_deep=True, on_progress=on_progress
        )


def _find_worst(findings: tuple[Finding, ...]) -> Finding:
    order = ["fail", "unknown", "ok"]
    return min(findings, key=lambda finding: order.index(finding.status))


def _print_findings(findings: tuple[Finding, ...]) -> None:
    for finding in findings:
        print(f"{_mark(finding)} {finding.topic:13} {finding.text}")
        if finding.hint and finding.status != "ok":
            print(f"  {'':13} → {finding.hint}")


def _mark(finding: Finding) -> str:
    return paint(*_MARKS[finding.status])


def _format(value: object) -> str:
    if isinstance(value, list):
        return "  ".join(str(word) for word in value)
    if isinstance(value, dict):
        return "  ".join(f"{name}={content}" for name, content in value.items())
    return str(value).lower() if isinstance(value, bool) else str(value)
