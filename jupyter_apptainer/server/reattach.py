"""Kernels that have outlived their server, taken over by this one; and those of this one, left for the next.

A server takes over the kernels of notebooks in its own folder. It starts them under the id that they have, and the provisioner finds
that they run already.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import NoSuchKernel
from tornado.web import HTTPError

from ..errors import ApptainerError
from ..instances.janitor import remove_owner_dirs, sweep
from ..instances.model import LedgerEntry
from ..kernels.attach import list_orphans
from ..kernels.provisioner import ApptainerProvisioner
from ..kernels.resume import load_plan
from ..places import find_places
from .sessions import SessionRow, find_session


async def reattach_all(serverapp: Any, log: logging.Logger) -> None:
    """Take over what waits for a server with this one's folder, and end what waits for nobody."""
    if serverapp.gateway_config.gateway_enabled:
        return
    places = find_places()
    for leftover in await asyncio.to_thread(sweep, places):
        log.warning("Ended %s: %s", leftover.entry.name, leftover.reason)
    for entry in await asyncio.to_thread(list_orphans, places):
        try:
            if is_below(entry, serverapp.root_dir):
                await reattach(serverapp, entry)
                log.info("Attached kernel %s of %s, which has outlived its server", entry.kernel_id, entry.label)
        except (ApptainerError, HTTPError, NoSuchKernel) as error:
            log.warning("Kernel %s of %s stays without a server: %s", entry.kernel_id, entry.label, error)
    remove_owner_dirs(places)


def is_below(entry: LedgerEntry, root: str) -> bool:
    """Say whether the server shows the notebook's folder. Raises AttachError where that is not known any more."""
    folder = Path(load_plan(find_places(), entry).cwd)
    return folder.is_relative_to(os.path.realpath(root)) or folder.is_relative_to(root)


async def reattach(serverapp: Any, entry: LedgerEntry) -> None:
    """Take over one kernel, and the session of its notebook."""
    await serverapp.kernel_manager.start_kernel(
        kernel_id=entry.kernel_id,
        kernel_name=entry.kernelspec,
        env=os.environ | {"JPY_SESSION_NAME": entry.label},
    )
    _watch_until_idle(serverapp.kernel_manager.get_kernel(entry.kernel_id))
    session = find_session(entry.owner, entry.kernel_id) or _guess_session(entry, serverapp.root_dir)
    if session is not None and not await _has_session(serverapp, entry.kernel_id):
        await serverapp.session_manager.save_session(
            session.session_id or serverapp.session_manager.new_session_id(),
            path=session.path,
            name=session.name,
            type=session.type,
            kernel_id=entry.kernel_id,
        )


def _watch_until_idle(kernel: Any) -> None:
    """Take the kernel for busy until it answers: a culler must not end one that has worked all the time."""
    kernel.execution_state = "busy"
    channel = kernel.connect_shell()

    def on_reply(_: object) -> None:
        kernel.execution_state = "idle"
        channel.close()

    channel.on_recv(on_reply)
    kernel.session.send(channel, "kernel_info_request")


async def _has_session(serverapp: Any, kernel_id: str) -> bool:
    """Say whether the server knows one already: it may be configured to keep its sessions itself."""
    try:
        await serverapp.session_manager.get_session(kernel_id=kernel_id)
    except HTTPError:
        return False
    return True


def _guess_session(entry: LedgerEntry, root: str) -> SessionRow | None:
    """Without a record: the kernel's label is its notebook's path, where it has one."""
    path = Path(entry.label)
    if path.suffix != ".ipynb" or not path.is_relative_to(root):
        return None
    return SessionRow("", str(path.relative_to(root)), path.name, "notebook")


async def leave_persistent(serverapp: Any, log: logging.Logger) -> None:
    """Let go of the kernels that outlive this server, so that its end does not shut them down."""
    manager = serverapp.kernel_manager
    for kernel_id in manager.list_kernel_ids():
        kernel = manager.get_kernel(kernel_id)
        provisioner = kernel.provisioner
        if isinstance(provisioner, ApptainerProvisioner) and provisioner.is_persistent:
            kernel.stop_restarter()
            manager.stop_watching_activity(kernel_id)
            manager.remove_kernel(kernel_id)
            log.info("Kernel %s goes on without this server: `jupyter apptainer kernel ps`", kernel_id)
