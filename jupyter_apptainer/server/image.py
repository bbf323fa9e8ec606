"""GET /image: all that one image says about itself. Only images that the file browser reaches or `/images` lists can be asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.services.contents.filemanager import FileContentsManager
from tornado import web

from ..engine.locate import get_engine
from ..images.build_record import read_record
from ..images.catalogue import find_image_dirs, list_images, load_image
from ..images.digest import compute_digest
from ..images.inventory import read_inventory
from ..kernels.usage import find_usage, map_kernels_to_images
from ..places import Places
from .api import ApiHandler, Refusal, encode
from .orders import Desk

_MAX_PATH = 4096


class ImageHandler(ApiHandler):
    """One image, read without starting it."""

    auth_resource = "jupyter_apptainer:images"

    @web.authenticated
    @authorized
    async def get(self) -> None:
        path = await find_reachable_image(self, self.get_query_argument("path", ""))
        self.answer_text(await self.app.looks.share(f"image {path}", lambda: encode(describe_image(self.places, path))))


class ImageContentHandler(ApiHandler):
    """What is installed in an image, and its digest: read to its end, which takes seconds for each gigabyte."""

    auth_resource = "jupyter_apptainer:images"

    @web.authenticated
    @authorized
    async def get(self) -> None:
        path = await find_reachable_image(self, self.get_query_argument("path", ""))
        desk = Desk(self.places, self.app.settings_of_ours, self.app.root)
        self.answer_text(await self.app.looks.share(f"content {path}", lambda: encode(read_whole_image(desk, path))))


async def find_reachable_image(handler: ApiHandler, text: str) -> str:
    """Return the absolute path of an image that a client has named: absolute, or as the file browser has it.

    Raises Refusal for all else, whether it exists or not.
    """
    if not text or len(text) > _MAX_PATH or "\0" in text:
        raise Refusal(400, "path: expected the path of an image")
    path = os.path.normpath(os.path.join(handler.app.root, text))
    manager: Any = handler.contents_manager
    shown = _is_shown(path, manager) if isinstance(manager, FileContentsManager) else False
    if not shown and path not in await handler.in_thread(lambda: set(_iter_listed(handler))):
        raise Refusal(
            404,
            "no image that this server shows has this path",
            hint="name an image in the file browser's folders, in ApptainerConfig.image_dirs, or of a kernel",
        )
    return path


def _is_shown(path: str, manager: FileContentsManager) -> bool:
    """Say whether the file browser could show it."""
    root = os.path.realpath(manager.root_dir)
    if os.path.commonpath([root, path]) != root:
        return False
    return manager.allow_hidden or not any(part.startswith(".") for part in Path(path).relative_to(root).parts)


def _iter_listed(handler: ApiHandler) -> Iterator[str]:
    kernels = map_kernels_to_images(handler.places, os.environ)
    folders = find_image_dirs(handler.places, handler.app.settings_of_ours.image_dirs, os.environ)
    return (image.path for image in list_images(handler.places, folders, kernels.values()))


def describe_image(places: Places, path: str) -> dict[str, Any]:
    """Return what `image inspect --json` prints. Raises what `load_image` does."""
    image = load_image(places, path)
    usage = find_usage(path, places, os.environ)
    record = read_record(path) if image.kind == "sif" else None
    users = {"kernels": list(usage.kernels), "running": list(usage.running)}
    return {**image.to_json(), **users, "build": record.to_json() if record else None}


def read_whole_image(desk: Desk, path: str) -> dict[str, Any]:
    """Return the packages of an image and the SHA-256 of its file, None for a folder. Raises what `read_inventory` does."""
    engine = get_engine(desk.settings.engine_path or None, places=desk.places)
    packages = read_inventory(engine, path).packages
    digest = None if os.path.isdir(path) else compute_digest(path, desk.places)
    return {"sha256": digest, "packages": [asdict(each) for each in packages]}
