"""GPUs: a bar and a line for each, and who uses them."""

from __future__ import annotations

import os

from ...gpu import Device, GpuReport, Holder, Sampler
from ...gpu.format import (
    format_bytes,
    format_clock,
    format_memory,
    format_percent,
    format_power,
    format_temperature,
)
from ..front.model import Action, Bar, Row, Section

_HEADINGS = ("Notebook or program", "GPU", "Process", "Memory", "Use", "Owner")


def build_gpu_section(report: GpuReport | None, sampler: Sampler) -> Section:
    """Show what the sampler has read last; nothing is read here. report: None before its first look."""
    if report is None:
        return Section(name="gpu", title="GPU", empty="Looking…")
    notes = [] if report.status.code == "ok" else [f"{report.status.reason}. {report.status.fix}".strip()]
    labels = {device.uuid: device.label for device in report.devices}
    for others in report.others:
        held = format_bytes(others.memory_bytes)
        notes.append(f"GPU {labels[others.device]}: others have {others.processes} processes, {held}")
    if report.hidden and report.devices:
        notes.append(f"{report.hidden} more on this machine, not given to you")
    return Section(
        name="gpu",
        title="GPU",
        caption="Who uses the GPUs",
        headings=_HEADINGS,
        rows=tuple(_build_row(holder, labels[holder.device]) for holder in report.holders),
        notes=tuple(notes),
        bars=tuple(bar for device in report.devices for bar in _build_bars(device, sampler)),
        empty="No process of yours uses a GPU." if report.devices else "No GPU.",
    )


def _build_bars(device: Device, sampler: Sampler) -> tuple[Bar, Bar]:
    history = sampler.get_history(device)
    total = device.memory_total_bytes
    name = f"GPU {device.label} ({device.name})"
    details = ", ".join((format_temperature(device), format_power(device), format_clock(device)))
    return (
        Bar(
            label=f"{name}, use",
            fraction=None if device.utilisation_percent is None else device.utilisation_percent / 100,
            text=device.problem or f"{format_percent(device.utilisation_percent)}; {details}",
            history=tuple(
                None if each.utilisation_percent is None else each.utilisation_percent / 100 for each in history
            ),
        ),
        Bar(
            label=f"{name}, memory",
            fraction=None if not total or device.memory_used_bytes is None else device.memory_used_bytes / total,
            text=format_memory(device),
            history=tuple(
                None if not total or each.memory_used_bytes is None else each.memory_used_bytes / total
                for each in history
            ),
        ),
    )


def _build_row(holder: Holder, device: str) -> Row:
    is_orphan = holder.owner == "orphan"
    return Row(
        key=f"{holder.pid}-{holder.device}",
        cells=(
            os.path.basename(holder.label) if holder.owner in ("notebook", "orphan") else holder.label,
            device,
            str(holder.pid),
            format_bytes(holder.memory_bytes),
            format_percent(holder.utilisation_percent),
            holder.owner if holder.owner != "other" else holder.user,
        ),
        actions=(
            Action(
                label="Stop",
                words=("gpu", "stop", "--yes", str(holder.pid)),
                reason="" if is_orphan else "somebody owns it: only what nobody owns any more is stopped here",
                question=f"End process {holder.pid}? {holder.reason}.",
            ),
        ),
        facts=(("label", holder.label), ("instance", holder.instance or "-"), ("left over", holder.reason or "no")),
    )
