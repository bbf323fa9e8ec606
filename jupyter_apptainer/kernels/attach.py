"""Kernels that have outlived their server, and a new owner for them.

A client that starts a kernel under the id of one that waits gets that one: its state, its instance, its sockets. So the whole of
Jupyter's machinery (restarter, activity, interrupts) works for it as for any kernel.
"""

from __future__ import annotations

from typing import Any

from ..errors import AttachError
from ..instances.lease import can_be_claimed, claim
from ..instances.ledger import iter_entries
from ..instances.model import LedgerEntry
from ..instances.start import EngineFolders
from ..places import Places
from .connection import read_twin
from .container import ContainerKernel
from .resume import load_plan


def list_orphans(places: Places) -> list[LedgerEntry]:
    """Return the entries of running kernels that wait for a new owner, oldest first."""
    return [entry for entry in iter_entries(places) if can_be_claimed(entry)]


def find_orphan(places: Places, kernel_id: str, kernelspec: str) -> LedgerEntry | None:
    """Return the waiting kernel with this id and kernelspec."""
    for entry in list_orphans(places):
        if kernel_id and entry.kernel_id == kernel_id and entry.kernelspec == kernelspec:
            return entry
    return None


def attach(places: Places, entry: LedgerEntry, **arguments: Any) -> tuple[ContainerKernel, dict[str, Any]]:
    """Make this process the kernel's owner; returns the kernel and its connection. arguments: those of ContainerKernel.

    Raises AttachError where its plan cannot be read, or somebody was quicker. The kernel goes on in either case.
    """
    plan = load_plan(places, entry)
    connection = read_twin(plan.connection_file)
    claimed = claim(places, entry.name)
    if claimed is None:
        raise AttachError(f"the kernel of {entry.label or entry.kernel_id} has an owner again, or has ended")
    folders = EngineFolders(record_dir=claimed.record_dir, log_dir=claimed.log_dir)
    kernel = ContainerKernel.adopt(
        claimed,
        plan,
        connection,
        places=places,
        folders=folders,
        label=claimed.label,
        kernelspec=claimed.kernelspec,
        **arguments,
    )
    return kernel, connection
