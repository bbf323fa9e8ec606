"""The kernels in containers, one at a time: what one is made of, what it sees of the host, and what can be changed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ...errors import ApptainerError, SpecError
from ...gpu import GpuReport
from ...gpu.format import format_bytes as format_gpu_bytes
from ...images.records import find_record
from ...instances.binds import Bind, list_binds, sees_folder
from ...instances.ledger import iter_entries, load_entry
from ...instances.model import LedgerEntry
from ...instances.process import read_memory
from ...kernels.kernelspecs import Kernelspec, get_kernelspec, iter_kernelspecs
from ...kernels.running import RunningKernel, describe_entries
from ...kernels.spec import ContainerSpec
from ...overlays.model import load_overlay
from ...overlays.size import format_bytes
from ..context import PanelContext
from ..front.model import Action, Field, Form, Row, Section, Values, Words

_UNKNOWN = "its kernelspec is not one of ours"
_THIS_NOTEBOOK = "this notebook, as far as your rules for notebooks allow it"
_ALL_NOTEBOOKS = "all notebooks of this kernel"


def load_kernel(context: PanelContext, report: GpuReport | None = None) -> Section:
    """Look at each kernel that runs in a container, from the host. report: of the GPUs, where they were looked at."""
    kernelspecs = {each.name: each for each in iter_kernelspecs()}
    entries = _list_entries(context)
    rows = []
    for entry, kernel in zip(entries, describe_entries(entries), strict=True):
        row = _build_row(context, entry, kernel, kernelspecs)
        rows.append(replace(row, facts=(*row.facts, *_list_gpus(entry, report))))
    return Section(
        name="kernel",
        title="Kernel",
        caption="Kernels in containers",
        headings=("Notebook", "State", "Memory", "Kernel"),
        rows=tuple(rows),
        notes=(_describe_own(context),),
        forms=(_change_form(context), _bind_form(context)),
        empty="No kernel runs in a container: make one of an image, and choose it for a notebook.",
    )


def _list_entries(context: PanelContext) -> list[LedgerEntry]:
    """Return the kernels; first the one that asks."""
    entries = (entry for entry in iter_entries(context.places) if not entry.is_spare)
    return sorted(entries, key=lambda entry: entry.kernel_id != context.kernel_id)


def _describe_own(context: PanelContext) -> str:
    if context.kernel_id:
        return "This notebook's own kernel is the first one; what is shown and done here comes from its host."
    image = context.environ.get("APPTAINER_CONTAINER") or context.environ.get("SINGULARITY_CONTAINER")
    memory = format_bytes(read_memory(os.getpid()) or 0)
    where = f"runs in the image {image}" if image else "runs on this host, in no container"
    return f"This notebook's own kernel {where}, and has {memory} of memory."


def _build_row(
    context: PanelContext, entry: LedgerEntry, kernel: RunningKernel, kernelspecs: Mapping[str, Kernelspec]
) -> Row:
    kernelspec = kernelspecs.get(entry.kernelspec)
    spec = _parse(kernelspec, context)
    reason = context.obstacle or ("" if kernelspec else _UNKNOWN)
    limit = spec.resources.memory_bytes if spec else None
    memory = format_bytes(kernel.memory_bytes) + (f" of {format_bytes(limit)}" if limit else "")
    name = os.path.basename(entry.label) or entry.name
    return Row(
        key=entry.name,
        cells=(name, kernel.state, memory, entry.kernelspec or "-"),
        actions=(
            Action(
                label="Command line",
                words=("kernel", "explain", *_name_notebook(entry), entry.kernelspec or "-"),
                reason=reason,
                is_reading=True,
                is_to_copy=True,
            ),
            Action(label="Log", words=("instance", "logs", entry.name), is_reading=True),
            Action(
                label="Stop",
                words=("kernel", "stop", entry.kernel_id),
                question=f"Stop the kernel of {name}? What is in its memory is lost.",
            ),
        ),
        facts=tuple(_list_facts(context, entry, spec)),
        reasons={"Bind a folder": reason, "Restart with changes": reason},
    )


def _name_notebook(entry: LedgerEntry) -> Words:
    return ("--notebook", entry.label) if os.path.isfile(entry.label) else ()


def _parse(kernelspec: Kernelspec | None, context: PanelContext) -> ContainerSpec | None:
    try:
        return kernelspec.resolve(context.environ) if kernelspec else None
    except ApptainerError:
        # `kernel check` says what is wrong with it.
        return None


def _list_facts(context: PanelContext, entry: LedgerEntry, spec: ContainerSpec | None) -> list[tuple[str, str]]:
    record = find_record(context.places, entry.image)
    facts = [
        ("notebook", entry.label),
        ("image", entry.image),
        ("digest", (record.digest if record else "") or "not pulled by name"),
        ("start", ", ".join(f"{name} {seconds:.2f} s" for name, seconds in entry.phases.items()) or "not over yet"),
        *(("overlay", _describe_overlay(path)) for path in entry.overlays),
    ]
    if entry.kernel is None or not entry.kernel.is_alive():
        return facts
    binds = list_binds(entry.kernel.pid)
    own = (*entry.directories, *entry.instance_directories)
    facts += [
        ("sees", _describe_bind(bind))
        for bind in binds
        if not _is_below(bind.source, own) and not _is_below(bind.destination, own)
    ]
    # What is mounted below a folder of ours is how the kernel is reached, and nobody's files.
    private = [
        bind.destination for bind in binds if _is_below(bind.source, own) and not _is_below(bind.destination, own)
    ]
    facts += [("of its own", ", ".join(private))] if private else []
    folder = os.path.dirname(os.path.realpath(entry.label)) if os.path.isabs(entry.label) else ""
    if folder:
        is_seen = sees_folder(entry.kernel.pid, folder)
        facts.append(("notebook's folder", "✓ the same inside" if is_seen else f"⚠ {folder} is not seen inside"))
    mounted = {bind.destination for bind in binds}
    for wish in spec.binds if spec else ():
        if (wish.destination or wish.source) not in mounted:
            facts.append(("from the next start", f"{wish.source} → {wish.destination or wish.source}"))
    return facts


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def _describe_bind(bind: Bind) -> str:
    mode = "read only" if bind.is_read_only else "read and write"
    return f"{bind.source} → {bind.destination} ({mode})"


def _list_gpus(entry: LedgerEntry, report: GpuReport | None) -> list[tuple[str, str]]:
    """Say what the kernel and what it has started hold of each GPU."""
    if report is None:
        return []
    facts = []
    for device in report.devices:
        held = [each for each in report.holders if (each.device, each.kernel_id) == (device.uuid, entry.kernel_id)]
        known = [each.memory_bytes for each in held if each.memory_bytes is not None]
        if held:
            facts.append((f"GPU {device.label}", f"{format_gpu_bytes(sum(known) if known else None)} of memory"))
    return facts


def _describe_overlay(path: str) -> str:
    try:
        ext3 = load_overlay(path).ext3
    except (ApptainerError, OSError):
        return f"{path} (⚠ cannot be read)"
    used = f"{ext3.used_fraction * 100:.0f} % used" if ext3 else "a folder"
    return f"{path} ({used})"


def _bind_form(context: PanelContext) -> Form:
    fields = (
        Field(name="source", label="Folder", kind="folder", hint="on this host"),
        Field(name="target", label="As", hint="path inside; empty: the same"),
        Field(name="ro", label="For reading only", kind="check"),
        Field(name="now", label="Restart now: what is in the kernel's memory is lost", kind="check"),
    )

    def build(values: Values, key: str) -> Words:
        source = os.path.abspath(os.path.expanduser(str(values["source"]).strip()))
        if not os.path.exists(source) or ":" in source:
            raise SpecError(f"folder {source!r}: expected one that is there, without a colon in its name")
        target = str(values["target"]).strip() or source
        mode = ":ro" if values["ro"] else ""
        entry = _get_entry(context, key)
        kernelspec = get_kernelspec(entry.kernelspec)
        # What is given replaces what there was.
        before = kernelspec.config.get("binds")
        binds = [*(map(str, before) if isinstance(before, list) else ()), f"{source}:{target}{mode}"]
        restart = ("--restart", entry.kernel_id) if values["now"] else ()
        return ("kernel", "edit", kernelspec.name, *(word for bind in binds for word in ("--bind", bind)), *restart)

    return Form(label="Bind a folder", fields=fields, build=build, is_for_row=True)


def _change_form(context: PanelContext) -> Form:
    fields = (
        Field(name="image", label="Image", hint="empty: the same"),
        Field(name="memory", label="Memory", hint="4G; empty: as it is"),
        Field(name="nv", label="NVIDIA GPU", kind="choice", options=("as it is", "auto", "true", "false")),
        Field(name="env", label="Variable", hint="NAME=VALUE"),
        Field(name="overlay", label="Overlay", hint="FILE, auto or tmpfs; empty: as it is"),
        Field(name="scope", label="Kept for", kind="choice", options=(_THIS_NOTEBOOK, _ALL_NOTEBOOKS)),
    )

    def build(values: Values, key: str) -> Words:
        words: list[str] = []
        for name in ("image", "memory", "env", "overlay"):
            text = str(values[name]).strip()
            words += [f"--{name}", os.path.expanduser(text)] if text else []
        words += [] if values["nv"] == "as it is" else ["--nv", str(values["nv"])]
        entry = _get_entry(context, key)
        if values["scope"] == _THIS_NOTEBOOK or not words:
            return ("kernel", "restart", entry.kernel_id, *words)
        return ("kernel", "edit", get_kernelspec(entry.kernelspec).name, *words, "--restart", entry.kernel_id)

    return Form(
        label="Restart with changes",
        fields=fields,
        build=build,
        is_for_row=True,
        note="The kernel starts anew in a new container: what is in its memory is lost.",
    )


def _get_entry(context: PanelContext, key: str) -> LedgerEntry:
    """Return a kernel that runs, by its name in the ledger. Raises SpecError."""
    entry = load_entry(context.places, key)
    if entry is None:
        raise SpecError("the kernel has ended meanwhile", hint="choose another one")
    return entry
