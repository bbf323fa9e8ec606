"""What `jupyter apptainer kernel add | edit | list | show | check | explain | remove` do."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from dataclasses import asdict

from ..config import ApptainerConfig, load_config
from ..engine.environment import is_bending
from ..errors import SpecError
from ..kernels.describe import describe_kernelspec, hide_secrets
from ..kernels.explain import build_report, render_plan
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
from .container_options import build_config
from .kernel_restart import restart_edited
from .kernel_sources import count_errors, load_source, print_remarks
from .kernel_write import merge_config, probe_spec, write_kernel
from .output import GREEN, RED, YELLOW, is_yes, paint, print_json, print_note, print_table
from .progress import show_progress

_MARKS = {"ok": ("✓", GREEN), "unknown": ("?", YELLOW), "fail": ("✗", RED)}


def add_kernel(arguments: argparse.Namespace) -> int:
    """Make a kernel."""
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


def change_kernelspec(arguments: argparse.Namespace) -> int:
    """Change a kernel's settings."""
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


def list_kernels(arguments: argparse.Namespace) -> int:
    """Print all container kernels."""
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


def show_kernel(arguments: argparse.Namespace) -> int:
    """Print one kernel's settings."""
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


def check_kernel(arguments: argparse.Namespace) -> int:
    """Ask the image whether it can run the kernel."""
    found = get_kernelspec(arguments.name)
    findings = _find_findings(found, is_deep=True)
    if arguments.json:
        print_json(describe_kernelspec(found, findings))
    else:
        _print_findings(findings)
    return int(any(finding.status == "fail" for finding in findings))


def explain_start(arguments: argparse.Namespace) -> int:
    """Print the start of a kernel as a script."""
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


def remove_kernels(arguments: argparse.Namespace) -> int:
    """Take kernels out of Jupyter's list."""
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
