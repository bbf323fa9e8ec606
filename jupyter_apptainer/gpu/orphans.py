"""Give back memory of a GPU that is held by a process nobody owns any more."""

from __future__ import annotations

import signal
from collections.abc import Iterable

from ..errors import ProcessNotOrphaned
from ..instances.janitor import end_leftover, find_leftovers
from ..instances.process import ProcessIdentity
from ..places import Places
from .model import GpuReport, Holder
from .process import read_facts

_TERM_TIMEOUT_S = 5.0
_KILL_TIMEOUT_S = 2.0


def find_orphan(report: GpuReport, pid: int) -> Holder:
    """Return the holder `pid`. Raises ProcessNotOrphaned where it is none, or where somebody owns it."""
    held = [holder for holder in report.holders if holder.pid == pid]
    if not held:
        raise ProcessNotOrphaned(
            f"process {pid} of yours uses no GPU that you were given",
            hint="`jupyter apptainer gpu` shows those that do",
        )
    holder = held[0]
    if holder.owner == "orphan":
        return holder
    hints = {
        "notebook": f"shut the notebook's kernel down: `jupyter apptainer kernel stop {holder.kernel_id[:8]}`"
        if holder.kernel_id
        else "shut the notebook's kernel down",
        "instance": f"`apptainer instance stop {holder.instance}`",
    }
    raise ProcessNotOrphaned(
        f"process {pid} is not an orphan: it belongs to {holder.label}",
        hint=hints.get(holder.owner, f"if you want it to end: `kill {pid}`"),
    )


def list_orphans(holders: Iterable[Holder]) -> tuple[Holder, ...]:
    """Return the holders that nobody owns, each process once."""
    return tuple({holder.pid: holder for holder in holders if holder.owner == "orphan"}.values())


def stop_orphan(places: Places, holder: Holder, identity: ProcessIdentity | None = None) -> bool:
    """End an orphan, and its whole instance where that has no owner; True when it does not run any more.

    identity: of the process that somebody agreed to end (default: the one that has its pid now).
    """
    identity = identity or read_facts(holder.pid).identity
    if identity is None or not identity.is_alive():
        return True
    for leftover in find_leftovers(places):
        if holder.instance and leftover.entry.instance_name == holder.instance:
            end_leftover(places, leftover)
    identity.send_signal(signal.SIGTERM)
    if identity.wait_gone(_TERM_TIMEOUT_S):
        return True
    identity.send_signal(signal.SIGKILL)
    return identity.wait_gone(_KILL_TIMEOUT_S)
