"""Containers of ours that run, with what they use."""

from __future__ import annotations

import os
from datetime import datetime

from ...instances.ledger import iter_entries
from ...instances.model import LedgerEntry
from ...instances.stats import read_stats
from ...overlays.size import format_bytes
from ..context import PanelContext
from ..front.model import Action, Row, Section


def load_instances(context: PanelContext) -> Section:
    """Measure each of them now."""
    entries = list(iter_entries(context.places))
    return Section(
        name="instances",
        title="Instances",
        caption="Containers of your kernels on this host",
        headings=("Notebook", "State", "Since", "Processes", "Memory", "CPU", "Image", "Instance"),
        rows=tuple(_build_row(context, entry) for entry in entries),
        empty="No kernel runs in a container.",
    )


def _build_row(context: PanelContext, entry: LedgerEntry) -> Row:
    instance = entry.instance
    is_running = instance is not None and instance.init.is_alive()
    stats = read_stats(instance) if instance is not None and is_running else None
    state = "running" if is_running else "starting" if instance is None else "dead"
    name = os.path.basename(entry.label) or entry.name
    return Row(
        key=entry.name,
        cells=(
            name,
            state if entry.owner.is_alive() else "orphaned",
            datetime.fromtimestamp(entry.started_at).strftime("%Y-%m-%d %H:%M"),
            str(stats.processes) if stats else "-",
            format_bytes(stats.memory_bytes) if stats else "-",
            context.describe_cpu(entry.name, stats.cpu_s) if stats else "-",
            os.path.basename(entry.image),
            entry.instance_name,
        ),
        actions=(
            Action(label="Log", words=("instance", "logs", entry.name), is_reading=True),
            Action(
                label="Stop",
                words=("kernel", "stop", entry.kernel_id or entry.name),
                question=f"Stop {name} and all that runs in it? What is in its memory is lost.",
            ),
        ),
        facts=(("notebook", entry.label), ("image", entry.image), ("overlays", ", ".join(entry.overlays) or "-")),
    )
