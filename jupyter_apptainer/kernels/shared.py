"""One instance for several kernels, `instance: shared:NAME`: found in the ledger, joined by whoever asked for the same.

The number of kernels in it is the number of their entries. A lock file of the instance's name is held while one is started, joined
or left, so that two starts or ends at once see each other; the instance ends with the last entry.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from ..engine.lock import hold_lock
from ..errors import SharedInstanceMismatch
from ..instances.janitor import find_shared_lock
from ..instances.ledger import iter_sharers
from ..instances.model import Instance, LedgerEntry
from ..instances.mounts import is_seen
from ..places import Places
from .names import build_shared_name
from .plan import LaunchPlan
from .spec import ContainerSpec, find_shared_name


def find_running(places: Places, spec: ContainerSpec) -> Instance | None:
    """Return the instance that a kernel of `spec` would join, if it runs."""
    shared = find_shared_name(spec)
    if not shared:
        return None
    host = find_host(places, build_shared_name(places, shared))
    return host.instance if host else None


def find_host(places: Places, instance_name: str) -> LedgerEntry | None:
    """Return the oldest entry of a kernel in the running instance of this name."""
    for entry in iter_sharers(places, instance_name):
        if entry.instance and entry.instance.init.is_alive() and entry.instance.starter.is_alive():
            return entry
    return None


@asynccontextmanager
async def hold_shared(places: Places, plan: LaunchPlan) -> AsyncIterator[None]:
    """Hold the lock of the plan's shared instance; nothing where it has an instance of its own."""
    if not plan.is_shared:
        yield
        return
    lock = hold_lock(find_shared_lock(places, plan.instance_name))
    entering = asyncio.ensure_future(asyncio.to_thread(lock.__enter__))
    try:
        await asyncio.shield(entering)
    except asyncio.CancelledError:
        # The thread goes on waiting, and has to give back what it gets.
        entering.add_done_callback(lambda _: lock.__exit__(None, None, None))
        raise
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def check_joinable(host: LedgerEntry, plan: LaunchPlan) -> None:
    """Raise SharedInstanceMismatch where the kernel asked for something else than what runs, naming the field and the way out."""
    name = plan.instance_name
    differing = [field for field in {**host.wish, **plan.wish} if host.wish.get(field) != plan.wish.get(field)]
    if differing:
        listing = "; ".join(f"{field} {_compare(field, host.wish, plan.wish)}" for field in sorted(differing))
        raise SharedInstanceMismatch(
            f"the shared instance {name} runs with other settings than this kernel wants: {listing}",
            hint="give the kernel another NAME in `instance: shared:NAME`, or the same settings; or end the kernels in it first "
            "(`jupyter apptainer kernel ps`)",
        )
    assert host.instance is not None
    for folder, what in ((plan.instance_dir, "the folder for sockets"), (plan.cwd, "the notebook's folder")):
        if not is_seen(host.instance.init.pid, folder, folder):
            raise SharedInstanceMismatch(
                f"{what} {folder} is not seen in the shared instance {name}, which was started for another one",
                hint=f"put a folder above both into `binds` of all kernels that share it (`binds: {os.path.dirname(folder)}`), "
                "or give this kernel another NAME",
            )


def _compare(field: str, theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    return f"{theirs.get(field, 'by default')} there, {ours.get(field, 'by default')} here"
