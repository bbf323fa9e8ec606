"""`%apptainer` alone: what this notebook can reach."""

from __future__ import annotations

from ..instances.ledger import iter_entries
from ..places import find_places
from .context import Context
from .model import Answer, Value


def describe_host(context: Context | None) -> Answer:
    """Describe a kernel on the host. context: None where there is no engine."""
    entries = [entry for entry in iter_entries(find_places()) if not entry.is_spare]
    engine = context and f"{context.engine.flavour} {context.engine.version_text} ({context.engine.path})"
    return Answer(
        0,
        value=Value(
            "record",
            {
                "kernel": "on the host, in no container",
                "engine": engine or "none found: `%apptainer engine install` gets one",
                "container kernels": ", ".join(entry.label or entry.kernelspec for entry in entries) or "none running",
                "words": "`%apptainer help` lists all; `%apptainer images`, `ps`, `kernel list`, `doctor`",
            },
        ),
    )
