"""GET: what there is. Each handler looks on a thread, changes nothing, and counts as no activity."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from jupyter_server.auth.decorator import authorized
from tornado import web

from .. import __version__
from ..config import ApptainerConfig
from ..engine.host.storage import build_roles, load_disk
from ..engine.locate import get_engine
from ..errors import EngineError
from ..gpu.read import GpuReader
from ..images.catalogue import find_image_dirs, list_images
from ..instances.ledger import iter_entries
from ..instances.listing import list_instances
from ..instances.memory import MemoryReader
from ..kernels.describe import describe_kernelspec
from ..kernels.health import check_kernelspec
from ..kernels.kernelspecs import iter_kernelspecs
from ..kernels.overlays import find_overlay_users
from ..kernels.running import iter_running
from ..kernels.usage import map_kernels_to_images
from ..overlays.status import observe_overlay
from ..places import Places
from ..policy import shows_other_users
from ..tasks.store import iter_tasks
from .api import ApiHandler, encode
from .events import Noun


@dataclass(frozen=True)
class View:
    """What a look needs. memory: what earlier looks have read."""

    places: Places
    settings: ApptainerConfig
    memory: MemoryReader = field(default_factory=MemoryReader)


Look = Callable[[View], Any]


def look_at_status(view: View) -> dict[str, Any]:
    """Return versions, and whether the engine can be used: else why not."""
    engine, problem, places = None, None, view.places
    try:
        found = get_engine(view.settings.engine_path or None, places=places)
        engine = {"path": found.path, "flavour": found.flavour, "version": ".".join(map(str, found.version))}
    except EngineError as error:
        problem = {"code": error.code, "message": error.message, "hint": error.hint}
    active = sum(not task.is_over for task in iter_tasks(places))
    return {
        "version": __version__,
        "engine": engine,
        "problem": problem,
        "hostname": places.hostname,
        "active_tasks": active,
        "instances": sum(1 for _ in iter_entries(places)),
    }


def look_at_images(view: View) -> list[dict[str, Any]]:
    """Return the images of the configured folders and of kernels; none is started."""
    places, settings = view.places, view.settings
    kernels = map_kernels_to_images(places, os.environ)
    images = list_images(places, find_image_dirs(places, settings.image_dirs, os.environ), kernels.values())
    users: dict[str, list[str]] = {}
    for name, path in kernels.items():
        users.setdefault(os.path.realpath(path), []).append(name)
    return [{**image.to_json(), "kernels": users.get(os.path.realpath(image.path), [])} for image in images]


def look_at_instances(view: View) -> list[dict[str, Any]]:
    """Return the instances of ours on this host, and what they use."""
    return [row.to_json() for row in list_instances(iter_entries(view.places), view.memory)]


def look_at_kernels(view: View) -> dict[str, Any]:
    """Return the container kernelspecs, and the kernels that run on this host."""
    engine_path = view.settings.engine_path or None
    specs = [
        describe_kernelspec(found, check_kernelspec(found, view.places, os.environ, engine_path=engine_path))
        for found in iter_kernelspecs()
    ]
    # A connection file has the key to the kernel beside it; who may read it finds it by `kernel ps`.
    running = [
        {name: value for name, value in asdict(kernel).items() if name != "connection_file"}
        for kernel in iter_running(view.places, view.memory)
    ]
    return {"kernelspecs": specs, "running": running}


def look_at_overlays(view: View) -> list[dict[str, Any]]:
    """Return our own overlays and those of kernels, how full they are, who uses them."""
    places = view.places
    own: dict[str, tuple[str, ...]] = {str(path): () for path in sorted(places.overlays.glob("*.img"))}
    users = find_overlay_users(places, os.environ)
    return [asdict(observe_overlay(path, places, names)) for path, names in {**own, **users}.items()]


def look_at_gpus(view: View) -> dict[str, Any]:
    """Return the GPUs that this user was given, and which notebook uses them."""
    with GpuReader(view.places, show_others=shows_other_users(view.settings.config)) as reader:
        return asdict(reader.read())


def look_at_storage(view: View) -> list[dict[str, Any]]:
    """Return the folders in use, and how much is left on their disks."""
    try:
        engine = get_engine(view.settings.engine_path or None, places=view.places)
    except EngineError:
        engine = None
    rows = []
    for role in build_roles(engine, view.places, os.environ):
        disk = load_disk(role.path)
        usage = shutil.disk_usage(disk.path)
        rows.append(
            {
                "name": role.name,
                "path": str(role.path),
                "variable": role.variable,
                "file_system": disk.kind,
                "free_bytes": disk.free_bytes,
                "total_bytes": usage.total,
                "wanted_bytes": role.wanted_mib * 2**20,
            }
        )
    return rows


# Who looks at these is told of what changes.
_EVENTS: dict[str, Noun] = {"instances": "instance", "gpus": "gpu"}
LOOKS: dict[str, Look] = {
    "status": look_at_status,
    "images": look_at_images,
    "instances": look_at_instances,
    "kernels": look_at_kernels,
    "overlays": look_at_overlays,
    "gpus": look_at_gpus,
    "storage": look_at_storage,
}


def build_look_handler(noun: str, look: Look) -> type[ApiHandler]:
    """Make the handler for GET of a noun. Its method is its own: `authorized` keeps the resource that it was first asked with."""
    event = _EVENTS.get(noun)

    class LookHandler(ApiHandler):
        auth_resource = f"jupyter_apptainer:{noun}"

        @web.authenticated
        @authorized
        async def get(self) -> None:
            if event:
                self.app.events.look(event)
            self.answer_text(await self.app.looks.share(noun, lambda: encode(look(self.app.view))))

    return LookHandler


class Looks:
    """One look at a noun at a time, shared by all who wait for it: many viewers cost little more than one. For one event loop."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._waiting: dict[str, asyncio.Future[str]] = {}

    async def share(self, noun: str, look: Callable[[], str]) -> str:
        """Return what there is of a noun, looked at and encoded from now on and on a thread."""
        waiting = self._waiting.get(noun)
        if waiting is None:
            waiting = self._waiting[noun] = asyncio.ensure_future(self._look(noun, look))
        # A client that goes away must not take the answer from the others.
        return await asyncio.shield(waiting)

    async def _look(self, noun: str, look: Callable[[], str]) -> str:
        async with self._locks[noun]:
            # Who comes later may have changed something, and waits for the next look.
            del self._waiting[noun]
            try:
                return await asyncio.to_thread(look)
            finally:
                if noun not in self._waiting:
                    del self._locks[noun]
