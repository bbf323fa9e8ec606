"""Unpacking an image as a task: `plan_unpack` says what shall be done, for `tasks.start_task`; `run_unpack` does it, in the worker.

Only what behaves the same unpacked is unpacked; `find_obstacle` says why an image is not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..engine.host.storage import load_disk
from ..engine.locate import EngineInfo, get_engine
from ..engine.step import StepError
from ..engine.unsquash import Contents, measure_contents, unpack_squashfs
from ..errors import DiskFull, ImageInvalid
from ..tasks.model import TaskSpec
from ..tasks.report import Report
from .copies import Copy, CopyStore, find_used, make_key
from .identity import ImageIdentity, check_image
from .sif import read_sif

KIND = "image-unpack"
_MIB = 1 << 20
# Left to others: a part of the disk, within limits.
_HEADROOM_PART = 20
_HEADROOM_BYTES = 1024 * _MIB, 10240 * _MIB
_NO_FOLDERS = re.compile(r"^\s*allow container dir\s*=\s*no\b", re.MULTILINE | re.IGNORECASE)


def find_engine_obstacle(engine: EngineInfo) -> str:
    """Return why the engine is not given folders in place of images, as the end of a sentence; empty where it is."""
    if engine.setuid:
        return "the engine is installed setuid, and its administrator's rules about images look at the image's file"
    return f"{engine.config_file} has `allow container dir = no`" if _forbids_folders(engine) else ""


def find_disk_obstacle(folder: Path) -> str:
    """Return why no copies are made in `folder`, as the end of a sentence; empty where they can be. It need not exist yet."""
    disk, way_out = load_disk(folder), "(set ApptainerConfig.unpacked_images_dir)"
    if disk.is_network:
        return f"{disk.path} is on {disk.kind}, which is no disk of this machine {way_out}"
    return f"{disk.path} is mounted noexec {way_out}" if "noexec" in disk.options else ""


def find_obstacle(engine: EngineInfo, image: ImageIdentity, folder: Path) -> str:
    """Return why a copy of the image in `folder` cannot be made, as the end of a sentence; empty where it can.

    Raises ImageCorrupt and ImageInvalid where the image cannot be read.
    """
    if obstacle := find_engine_obstacle(engine):
        return obstacle
    if image.kind != "sif":
        return "it is unpacked already" if image.kind == "sandbox" else f"it is a bare {image.kind}, and no SIF"
    sif = read_sif(image.real_path)
    system = sif.system_partition
    kind = system.partition.file_system if system and system.partition else "unknown"
    if kind != "squashfs":
        return "it is encrypted" if kind == "encrypted squashfs" else f"its file system is {kind}, and no squashfs"
    if sif.overlays:
        return "it has an overlay embedded, which only the image's file brings along"
    return find_disk_obstacle(folder)


def plan_unpack(image: ImageIdentity, store: CopyStore, *, engine: str = "") -> TaskSpec:
    """Plan to make a copy. engine: the program, by default the one that is found."""
    return TaskSpec(
        kind=KIND,
        title=f"unpack {Path(image.real_path).name}",
        work=f"{__name__}:run_unpack",
        args={
            "image": image.real_path,
            "folder": str(store.folder),
            "limit_bytes": store.limit_bytes,
            "engine": engine,
        },
        target=str(store.folder / make_key(image)),
        fingerprint=image.key,
    )


def run_unpack(args: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Called in the worker: make the copy, and return what it is, as `Copy.to_json` has it."""
    store = CopyStore(Path(args["folder"]), int(args["limit_bytes"]), report.places)
    engine = get_engine(args["engine"] or None, places=report.places)
    return make_copy(engine, args["image"], store, report).to_json()


def make_copy(engine: EngineInfo, path: str, store: CopyStore, report: Report) -> Copy:
    """Unpack an image, where there is no copy of it yet. Copies of images that have changed go first, and then the longest unused.

    Raises ImageInvalid for what cannot be unpacked, or is too large for the limit; DiskFull; FuseHelperMissing without unsquashfs.
    """
    image = check_image(path)
    obstacle = find_obstacle(engine, image, store.folder)
    if obstacle:
        raise ImageInvalid(f"the image {path} is not unpacked: {obstacle}", hint="kernels start from the image itself")
    store.remove_leftovers()
    store.drop_stale()
    if found := store.find(image):
        return found
    if (store.folder / make_key(image)).exists():
        raise ImageInvalid(
            f"the image {path} is not unpacked: a kernel runs in a copy of which files were removed",
            hint="shut it down, and keep copies where nobody removes old files: ApptainerConfig.unpacked_images_dir",
        )
    system = read_sif(image.real_path).system_partition
    assert system is not None
    report.begin("Measuring the image")
    try:
        contents = measure_contents(engine, image.real_path, system.offset)
        make_room(store, path, contents)
        with store.begin(image) as folder:
            report.begin("Unpacking")
            tree = folder / os.path.basename(image.real_path)
            unpack_squashfs(
                engine,
                image.real_path,
                system.offset,
                tree,
                lambda count: report.count(min(count, contents.files), contents.files, "items"),
            )
            if check_image(path).key != image.key:
                raise StepError("it changed meanwhile")
            return store.keep(folder, image, contents.size_bytes)
    except StepError as error:
        raise ImageInvalid(
            f"the image {path} is not unpacked: {error.reason}",
            hint="kernels start from the image itself",
            log_tail=error.log_tail,
        ) from error


def make_room(store: CopyStore, path: str, contents: Contents) -> None:
    """Remove other copies where the limit asks for it. Raises ImageInvalid where it cannot be kept, DiskFull where the disk has no room."""
    if contents.devices:
        raise ImageInvalid(
            f"the image {path} is not unpacked: it has devices, such as {contents.devices[0]}",
            hint="kernels start from the image itself",
        )
    used = find_used(store.places)
    staying = sum(copy.about.size_bytes for copy in store.list_all() if str(copy.tree) in used)
    if contents.size_bytes + staying > store.limit_bytes:
        also = f", and copies in use take {staying // _MIB} MiB" if staying else ""
        raise ImageInvalid(
            f"the image {path} is not unpacked: that would take {contents.size_bytes // _MIB} MiB{also}",
            hint=f"raise ApptainerConfig.unpacked_images: it allows {store.limit_bytes // _MIB} MiB",
        )
    store.prune(store.limit_bytes - contents.size_bytes)
    disk = os.statvfs(load_disk(store.folder).path)
    least, most = _HEADROOM_BYTES
    headroom = max(least, min(most, disk.f_blocks * disk.f_frsize // _HEADROOM_PART))
    free = disk.f_bavail * disk.f_frsize
    if free < contents.size_bytes + headroom:
        raise DiskFull(
            f"the image {path} is not unpacked: that would take {contents.size_bytes // _MIB} MiB, and the disk of {store.folder} has "
            f"{free // _MIB} MiB left, of which {headroom // _MIB} are for others",
            hint="free some space, or set ApptainerConfig.unpacked_images_dir to a folder on a larger disk of this machine",
        )


def _forbids_folders(engine: EngineInfo) -> bool:
    try:
        return bool(_NO_FOLDERS.search(Path(engine.config_file).read_text(encoding="utf-8", errors="replace")))
    except OSError:
        return False
