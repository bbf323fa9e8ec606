"""A launch plan as a shell script: what a start does, in the order in which it does it, with the reason for each line.

The script can be run by hand. Secrets are not in it: they are taken from variables of the shell that runs it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from ..engine.command import REDACTED, redact_argv
from ..engine.fuse_programs import CONFIG_VARIABLE
from .forking import BUNDLE, PROGRAM
from .layers import Setting
from .plan import SHIM, LaunchPlan, PlannedFile

_INSIDE = Path(__file__).parent / "inside"
_FLAGS_WITH_VALUE = frozenset(
    {"--mount", "--overlay", "--workdir", "--home", "--network", "--pwd", "--memory", "--cpus", "--pids-limit"}
)


def render_plan(plan: LaunchPlan, settings: Sequence[Setting] = (), *, unset: Sequence[str] = ()) -> str:
    """Return the script for `plan`. settings: what was wished, by whom. unset: variables that would bend what the engine does."""
    return "\n".join(_iter_lines(plan, settings, unset)) + "\n"


def build_report(plan: LaunchPlan) -> dict[str, object]:
    """Return `plan` for programs, without secrets."""
    report = asdict(plan)
    report["env"] = [
        {
            "name": entry.name,
            "value": REDACTED if _is_hidden(entry.name, entry.value) else entry.value,
            "why": entry.why,
        }
        for entry in plan.env
    ]
    report["instance_argv"] = redact_argv(plan.instance_argv)
    report["kernel_argv"] = redact_argv(plan.kernel_argv)
    report["kernel_command"] = redact_argv(plan.kernel_command)
    report["options"]["extra"] = redact_argv(plan.options.extra)
    return report


def _iter_lines(plan: LaunchPlan, settings: Sequence[Setting], unset: Sequence[str]) -> Iterator[str]:
    engine = plan.engine
    yield "#!/bin/sh"
    yield f"# The start of a kernel in {_in_comment(plan.image)}, as it would happen now."
    yield f"# Engine: {engine.flavour} {engine.version_text}, {engine.path} (from {engine.origin})."
    if plan.unpacked_note:
        yield f"# Image: {_in_comment(plan.unpacked_note)}."
    for warning in plan.warnings:
        yield f"# Warning: {_in_comment(warning)}"
    if settings:
        yield "# What was wished, and by whom:"
    for setting in settings:
        yield f"#   {setting.name} = {_in_comment(setting.value)}  ({_in_comment(setting.origin)})"
    yield f"# GPU: {_in_comment(plan.gpu.note)}."
    for note in plan.resources.notes:
        yield f"# Limits: {_in_comment(note)}."
    yield "set -eu"
    yield "umask 077"
    yield ""
    yield "# Variables that would change what the engine does, whatever its flags say."
    yield "unset " + " ".join(shlex.quote(name) for name in unset) if unset else "# (none is set)"
    yield ""
    yield "# Folders of this kernel; they go with it."
    yield f"mkdir -p {shlex.quote(plan.private_dir)} {shlex.quote(plan.scratch_dir)}"
    if any(planned.kind == "mountpoint" for planned in plan.files):
        # The engine cannot make a place to mount at inside a folder that is itself mounted.
        yield 'mountpoint() { if [ -d "$1" ]; then mkdir -p "$2"; else mkdir -p "$(dirname "$2")"; touch "$2"; fi; }'
    for planned in plan.files:
        yield from _iter_file_lines(planned)
    for word in plan.kernel_command:
        script = Path(word)
        if script.parent == Path(plan.private_dir) and (_INSIDE / script.name).is_file():
            yield f"cp {shlex.quote(str(_INSIDE / script.name))} {shlex.quote(word)}  # makes the kernel lead a session"
    if plan.fork_server:
        if plan.fork_server.bundle:
            yield f"touch {shlex.quote(f'{plan.fork_server.folder}/{BUNDLE}')}  # where the code of what it imports is mounted"
        for name in (SHIM, *PROGRAM):
            target = shlex.quote(f"{plan.fork_server.folder}/{name}")
            yield f"install -m 700 {shlex.quote(str(_INSIDE / name))} {target}  # for the process that kernels are forked from"
    yield ""
    yield "# What the kernel sees as variables: the engine hands APPTAINERENV_NAME on as NAME."
    for entry in plan.env:
        yield _env_line(entry.name, entry.value, entry.why)
    yield ""
    yield "# What the kernel sees of the host:"
    for bind in plan.binds:
        yield f"#   {_in_comment(bind.destination)} is {_in_comment(bind.source)} ({bind.mode}): {_in_comment(bind.why)}"
    yield ""
    if not plan.options.overlays and not plan.options.writable_tmpfs:
        yield "# All else is the image, which is read-only, for pip too: `--overlay auto` adds a layer that can be written to."
        yield ""
    stop = shlex.join((engine.path, "instance", "stop", plan.instance_name))
    remove = shlex.join(("rm", "-rf", plan.instance_dir, plan.scratch_dir))
    yield "# At the end, whatever it is, container and folders go."
    yield f"trap {shlex.quote(f'{stop}; {remove}')} EXIT"
    # Some shells run the EXIT trap only where they end by themselves.
    yield "trap 'exit 1' HUP INT TERM"
    yield ""
    yield "# The container. It stays while kernels in it come and go."
    if plan.options.config_file:
        why = "the engine's own configuration, and a squashfuse that takes less memory"
        yield f"export {CONFIG_VARIABLE}={shlex.quote(plan.options.config_file)}  # {why}"
    yield _render_command(plan.instance_argv)
    yield ""
    if plan.fork_server:
        yield "# Jupyter has the container's main process fork the kernel. By hand, it joins:"
    yield "# The kernel. Where there is no connection file, ipykernel makes one; in another terminal then:"
    yield f"#   jupyter console --existing {shlex.quote(plan.connection_file)}"
    if plan.resources.processors:
        processors = ",".join(map(str, plan.resources.processors))
        yield f"taskset --cpu-list --pid {processors} $$  # what follows runs on these processors"
    yield _render_command(plan.kernel_argv)


def _iter_file_lines(planned: PlannedFile) -> Iterator[str]:
    path = shlex.quote(planned.path)
    why = f"  # {_in_comment(planned.why)}"
    target = shlex.quote(planned.target)
    if planned.kind == "link":
        yield f"ln -sfn {target} {path}{why}"
    elif planned.kind == "mountpoint":
        yield f"mountpoint {target} {path}{why}"
    else:
        yield f"mkdir -p {path}{why}"


def _env_line(name: str, value: str, why: str) -> str:
    variable = f"APPTAINERENV_{name}"
    if _is_hidden(name, value):
        return f'export {variable}="${{{name}-}}"  # {_in_comment(why)}; a secret: taken from your own {name}'
    return f"export {variable}={shlex.quote(value)}  # {_in_comment(why)}"


def _is_hidden(name: str, value: str) -> bool:
    word = f"{name}={value}"
    return redact_argv([word]) != [word]


def _render_command(argv: Sequence[str]) -> str:
    """Render a command: the program and its words, a line for each flag with its value, and what it is about."""
    words = [shlex.quote(word) for word in redact_argv(list(argv))]
    first = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    lines = [" ".join(words[:first])]
    while first < len(words) and words[first].startswith("--"):
        count = 2 if words[first] in _FLAGS_WITH_VALUE else 1
        lines.append(" ".join(words[first : first + count]))
        first += count
    if first < len(words):
        lines.append(" ".join(words[first:]))
    return " \\\n    ".join(lines)


def _in_comment(text: str) -> str:
    return " ".join(text.split("\n"))
