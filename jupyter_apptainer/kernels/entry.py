"""A kernel's entry in the ledger, as its plan determines it before anything is started."""

from __future__ import annotations

import time

from ..instances.model import LedgerEntry
from ..instances.process import ProcessIdentity
from ..instances.start import EngineFolders
from ..places import Places
from .plan import LaunchPlan
from .resume import find_kept_dir


def build_entry(plan: LaunchPlan, places: Places, folders: EngineFolders) -> LedgerEntry:
    """Return the entry of a kernel that this process owns."""
    directories = [plan.private_dir] if plan.is_shared else [plan.private_dir, plan.scratch_dir]
    if plan.persist is not False:
        directories.append(find_kept_dir(places, plan.entry_name))
    return LedgerEntry(
        name=plan.entry_name,
        image=plan.image,
        owner=ProcessIdentity.current(),
        kernel_id=plan.kernel_id,
        label="",
        started_at=time.time(),
        record_dir=folders.record_dir,
        log_dir=folders.log_dir,
        directories=tuple(directories),
        overlays=tuple(flag for flag in plan.options.overlays if not flag.endswith(":ro")),
        persist=plan.persist,
        shared=plan.instance_name if plan.is_shared else "",
        wish=plan.wish,
        instance_directories=(plan.instance_dir, plan.scratch_dir) if plan.is_shared else (),
        unpacked=plan.unpacked or "",
    )
