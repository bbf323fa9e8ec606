"""The kernels in containers, one at a time: what one is made of, what it sees of the host, and what can be changed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from ...errors import ApptainerError
from ...gpu import GpuReport
from ...gpu.format import format_bytes as format_gpu_bytes
from ...images.digest import find_known_digest
from ...images.records import find_record
from ...instances.binds import Bind, list_binds, sees_folder
from ...instances.ledger import iter_entries
from ...instances.model import LedgerEntry
from ...instances.process import read_memory
from ...instances.stats import InstanceStats, read_all_stats
from ...kernels.kernelspecs import Kernelspec, iter_kernelspecs
from ...kernels.running import RunningKernel, describe_entries
from ...kernels.spec import ContainerSpec
from ...kernels.wishes import UNLIMITED, ResourcesWish
from ...overlays.model import load_overlay
from ...overlays.size import format_bytes
from ..context import PanelContext
from ..front.model import Action, Bar, Row, Section, Words
from .kernel_forms import FREEZE, GROW, build_kernel_forms

_UNKNOWN = "its kernelspec is not one of ours"


@dataclass(frozen=True)
class _Look:
    """One kernel as it is found now. spec: what its kernelspec says; used: by its container."""

    entry: LedgerEntry
    kernel: RunningKernel
    spec: ContainerSpec | None
    is_ours: bool
    used: InstanceStats | None

    @property
    def name(self) -> str:
        return os.path.basename(self.entry.label) or self.entry.name

    @property
    def limits(self) -> ResourcesWish:
        return self.spec.resources if self.spec else UNLIMITED


def load_kernel(context: PanelContext, report: GpuReport | None = None) -> Section:
    """Look at each kernel that runs in a container, from the host. report: of the GPUs, where they were looked at."""
    looks = _look(context)
    rows = [_build_row(context, look) for look in looks]
    return Section(
        name="kernel",
        title="Kernel",
        caption="Kernels in containers",
        headings=("Notebook", "State", "Memory", "Kernel"),
        rows=tuple(
            replace(row, facts=(*row.facts, *_list_gpus(look.entry, report)))
            for row, look in zip(rows, looks, strict=True)
        ),
        bars=tuple(bar for look in looks for bar in _build_bars(look)),
        notes=(_describe_own(context),),
        forms=build_kernel_forms(context),
        empty="No kernel runs in a container: make one of an image, and choose it for a notebook.",
    )


def _look(context: PanelContext) -> list[_Look]:
    kernelspecs = {each.name: each for each in iter_kernelspecs()}
    entries = _list_entries(context)
    alive = {each.name: each.instance for each in entries if each.instance and each.instance.init.is_alive()}
    used = dict(zip(alive, read_all_stats(alive.values()), strict=True))
    return [
        _Look(
            entry=entry,
            kernel=kernel,
            spec=_parse(kernelspecs.get(entry.kernelspec), context),
            is_ours=entry.kernelspec in kernelspecs,
            used=used.get(entry.name),
        )
        for entry, kernel in zip(entries, describe_entries(entries), strict=True)
    ]


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


def _build_row(context: PanelContext, look: _Look) -> Row:
    entry, kernel, name = look.entry, look.kernel, look.name
    reason = context.obstacle or ("" if look.is_ours else _UNKNOWN)
    limit = look.limits.memory_bytes
    memory = format_bytes(kernel.memory_bytes) + (f" of {format_bytes(limit)}" if limit else "")
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
        facts=(*_list_usage(context, look), *_list_facts(context, entry, look.spec)),
        reasons={
            "Bind a folder": reason,
            "Restart with changes": reason,
            **dict.fromkeys((GROW, FREEZE), _find_overlay_reason(context, entry)),
        },
    )


def _list_usage(context: PanelContext, look: _Look) -> list[tuple[str, str]]:
    """Say what the kernel's container uses, against its limits."""
    if look.used is None:
        return []
    memory = f" of {format_bytes(look.limits.memory_bytes)}" if look.limits.memory_bytes else ", no limit"
    cpus = f", at most {look.limits.cpus:g} processors" if look.limits.cpus else ", no limit"
    return [
        ("memory", f"{format_bytes(look.used.memory_bytes)}{memory}"),
        ("processor", f"{context.describe_cpu(look.entry.name, look.used.cpu_s)}{cpus}"),
    ]


def _build_bars(look: _Look) -> Iterator[Bar]:
    """Draw what has a limit: memory, and overlays."""
    limit = look.limits.memory_bytes
    if limit and look.used:
        text = f"{format_bytes(look.used.memory_bytes)} of {format_bytes(limit)}"
        yield Bar(label=f"{look.name}, memory", fraction=look.used.memory_bytes / limit, text=text)
    for path in look.entry.overlays:
        with suppress(ApptainerError, OSError):
            ext3 = load_overlay(path).ext3
            if ext3:
                text = f"{ext3.used_fraction * 100:.0f} % of {format_bytes(ext3.size_bytes)} used"
                yield Bar(label=f"{look.name}, {os.path.basename(path)}", fraction=ext3.used_fraction, text=text)


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
        ("digest", _describe_digest(context, entry, (record.digest if record else "") or "")),
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


def _describe_digest(context: PanelContext, entry: LedgerEntry, pulled: str) -> str:
    known = find_known_digest(entry.image, context.places)
    file = f"sha256:{known} (the file)" if known else ""
    return ", ".join(filter(None, (pulled and f"{pulled} (as pulled)", file))) or "not known: it was not pulled by name"


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


def _find_overlay_reason(context: PanelContext, entry: LedgerEntry) -> str:
    if context.obstacle:
        return context.obstacle
    if not entry.overlays:
        return "it has no overlay file to write to"
    # Through the bridge of a kernel that is stopped nothing is done any more.
    return "it stops this very kernel: do it in another notebook" if entry.kernel_id == context.kernel_id else ""
