"""`jupyter apptainer kernel ps | stop`: container kernels as they run, also those that no server knows any more."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from datetime import datetime

from ..kernels.fields import format_persist
from ..kernels.running import RunningKernel, iter_running, stop_running
from ..places import find_places
from .output import print_json, print_note, print_table

_MIB = 1024 * 1024
_HEADINGS = ("KERNEL", "STATE", "SINCE", "MEMORY", "PID", "SERVER", "PERSIST", "KERNELSPEC", "NOTEBOOK")


def list_running(arguments: argparse.Namespace) -> int:
    """Print the kernels that run on this host."""
    kernels = list(iter_running(find_places()))
    if arguments.json:
        print_json([asdict(kernel) | {"persist": format_persist(kernel.persist)} for kernel in kernels])
        return 0
    if not kernels:
        print_note("no kernels")
        return 0
    print_table(_HEADINGS, [_to_row(kernel) for kernel in kernels])
    for kernel in kernels:
        if kernel.state == "waiting":
            print_note(f"{kernel.kernel_id[:8]} waits: jupyter console --existing {kernel.connection_file}")
    return 0


def _to_row(kernel: RunningKernel) -> tuple[str, ...]:
    return (
        kernel.kernel_id[:8],
        kernel.state,
        datetime.fromtimestamp(kernel.started_at).strftime("%Y-%m-%d %H:%M"),
        f"{kernel.memory_bytes / _MIB:.0f} MiB",
        str(kernel.pid or "-"),
        str(kernel.owner_pid) if kernel.is_owner_alive else "gone",
        _describe_lease(kernel),
        kernel.kernelspec + (f" ({kernel.instance})" if kernel.is_shared else ""),
        kernel.label,
    )


def _describe_lease(kernel: RunningKernel) -> str:
    if isinstance(kernel.persist, bool):
        return "yes" if kernel.persist else "no"
    if kernel.lease_left_s is None:
        return str(format_persist(kernel.persist))
    return f"{max(0.0, kernel.lease_left_s) / 60:.0f} min left"


def stop_kernels(arguments: argparse.Namespace) -> int:
    """End running kernels."""
    ok = True
    for pattern in arguments.names:
        for entry, is_ended in stop_running(find_places(), pattern):
            what = "ended" if is_ended else "could not end"
            print(f"{what} {entry.kernel_id} {os.path.basename(entry.label)}".rstrip())
            ok = ok and is_ended
    return 0 if ok else 1
