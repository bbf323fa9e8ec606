"""POST and DELETE: kernelspecs, overlays, instances, and passwords of registries, which go to the engine and nowhere else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import authorized
from tornado import web

from ..engine.locate import get_engine
from ..errors import InstanceNotFound
from ..images.choices import build_transfer_settings
from ..images.login import log_in, log_out
from ..instances.janitor import end_entry
from ..instances.ledger import iter_entries
from ..instances.model import LedgerEntry
from ..kernels.adding import KernelRequest, probe_request, write_request
from ..kernels.kernelspecs import check_name, iter_kernelspecs, remove_kernelspec
from ..kernels.overlay_work import create_for_image
from ..kernels.spec import parse_container_spec, resolve_paths
from ..overlays.manage import remove_overlay
from ..overlays.status import observe_overlay
from ..places import Places
from .api import ApiHandler, Refusal, encode
from .orders import Desk
from .reading import look_at_overlays


class _ChangeHandler(ApiHandler):
    @property
    def desk(self) -> Desk:
        """What orders are held against."""
        return Desk(self.places, self.app.settings_of_ours, self.app.root)

    def answer_nothing(self) -> None:
        """Done, and there is nothing to say."""
        self.set_status(204)
        self.finish()


class KernelspecsHandler(_ChangeHandler):
    """A new container kernel."""

    auth_resource = "jupyter_apptainer:kernelspecs"

    @web.authenticated
    @authorized
    async def post(self) -> None:
        body = self.read_body("KernelspecRequest")
        self.answer(await self.in_thread(add_kernel, self.desk, body), 201)


class KernelspecHandler(_ChangeHandler):
    """One container kernel. Its image and its overlays stay."""

    auth_resource = "jupyter_apptainer:kernelspecs"

    @web.authenticated
    @authorized
    async def delete(self, name: str) -> None:
        await self.in_thread(_remove_kernel, name)
        self.answer_nothing()


class InstanceHandler(_ChangeHandler):
    """One instance of ours, with the kernel in it. Nobody else's is ever touched."""

    auth_resource = "jupyter_apptainer:instances"

    @web.authenticated
    @authorized
    async def delete(self, name: str) -> None:
        await end_instances(self.kernel_manager, self.places, name)
        self.answer_nothing()


class OverlaysHandler(_ChangeHandler):
    """All overlays, a new one, or one less."""

    auth_resource = "jupyter_apptainer:overlays"

    @web.authenticated
    @authorized
    async def get(self) -> None:
        look = self.app.looks.share("overlays", lambda: encode(look_at_overlays(self.app.view)))
        self.answer_text(await look)

    @web.authenticated
    @authorized
    async def post(self) -> None:
        body = self.read_body("OverlayRequest")
        self.answer(await self.in_thread(make_overlay, self.desk, body), 201)

    @web.authenticated
    @authorized
    async def delete(self) -> None:
        path = self.get_query_argument("path", "")
        if not os.path.isabs(path) or "\0" in path:
            raise Refusal(400, "path: expected the absolute path of an overlay")
        await self.in_thread(remove_overlay, path, self.places)
        self.answer_nothing()


class LoginsHandler(_ChangeHandler):
    """The password of a registry: checked there, then kept by the engine. It is in no log, no state and no command line."""

    auth_resource = "jupyter_apptainer:registries"

    @web.authenticated
    @authorized
    async def post(self) -> None:
        body = self.read_body("LoginRequest")
        await self.in_thread(_log_in, self.desk, body)
        self.answer_nothing()

    @web.authenticated
    @authorized
    async def delete(self) -> None:
        host = self.get_query_argument("host", "")
        if not host or not host.isprintable() or "/" in host:
            raise Refusal(400, "host: expected HOST or HOST:PORT")
        await self.in_thread(_log_out, self.desk, host)
        self.answer_nothing()


def add_kernel(desk: Desk, body: Mapping[str, Any]) -> dict[str, object]:
    """Ask the image, write the kernelspec, and return what was written."""
    name = check_name(body["name"])
    spec = parse_container_spec(body["config"], origin="the request")
    resolved = resolve_paths(spec, desk.root, os.environ)
    probe = probe_request(resolved, desk.places, desk.settings) if body.get("check", True) else None
    # Relative paths of a request mean nothing in the kernelspec's own folder.
    request = KernelRequest(
        name=name,
        spec=resolved,
        display_name=body.get("display_name"),
        language=body.get("language", "python"),
        is_replacing=body.get("replace", False),
    )
    added = write_request(request, probe)
    return {"name": name, "folder": str(added.folder), "display_name": added.display_name}


def find_entries(places: Places, name: str) -> list[LedgerEntry]:
    """Return what the ledger has of the instance of ours with this name: its kernels. Raises InstanceNotFound."""
    entries = [entry for entry in iter_entries(places) if name in (entry.name, entry.instance_name)]
    if not entries:
        raise InstanceNotFound(f"no instance of ours is named {name!r}")
    return entries


async def end_instances(kernels: Any, places: Places, name: str) -> None:
    """End the instance of ours with this name, and the kernels in it. Raises InstanceNotFound."""
    for entry in await asyncio.to_thread(find_entries, places, name):
        if entry.kernel_id in kernels:
            # Ended from below, it would be taken for a crash and started anew.
            await ensure_async(kernels.shutdown_kernel(entry.kernel_id))
        else:
            await asyncio.to_thread(end_instance, places, entry)


def end_instance(places: Places, entry: LedgerEntry) -> None:
    """End what the ledger has."""
    if not end_entry(places, entry):
        raise Refusal(500, f"{entry.instance_name} could not be ended")


def make_overlay(desk: Desk, body: Mapping[str, Any]) -> dict[str, Any]:
    """Make an overlay, and return how it is."""
    path = str(desk.find_path(body["path"]))
    engine = get_engine(desk.settings.engine_path or None, places=desk.places)
    image = str(desk.find_path(body["image"])) if "image" in body else None
    create_for_image(engine, path, body["size_mib"], image, os.environ)
    return asdict(observe_overlay(path, desk.places))


def _remove_kernel(name: str) -> None:
    if name not in {found.name for found in iter_kernelspecs()}:
        raise Refusal(404, f"there is no container kernel {name!r}")
    remove_kernelspec(name)


def _log_in(desk: Desk, body: Mapping[str, Any]) -> None:
    engine = get_engine(desk.settings.engine_path or None, places=desk.places)
    settings = build_transfer_settings(desk.settings, no_https=body.get("no_https", False))
    log_in(engine, body["host"], body["username"], body["password"], settings)


def _log_out(desk: Desk, host: str) -> None:
    engine = get_engine(desk.settings.engine_path or None, places=desk.places)
    log_out(engine, host, build_transfer_settings(desk.settings, no_https=False))
