"""`jupyter apptainer image unpack`: copies of images that kernels start from faster, as folders on a disk of this machine."""

from __future__ import annotations

import argparse
from datetime import datetime
from typing import Any

from ..images.catalogue import find_image
from ..images.copies import Copy, CopyStore
from ..images.identity import check_image
from ..kernels.unpacked import find_store, unpack_now
from ..overlays.size import format_bytes
from ..places import Places
from .image_settings import find_engine_and_places, load_settings
from .output import print_json, print_note
from .task_view import show_task
from .verbs import add_verb


def add_unpack(commands: Any) -> None:
    """Add `unpack` to the commands of `image`."""
    unpack = add_verb(
        commands,
        "image",
        "unpack",
        "make the unpacked copy of an image now that kernels start from (ApptainerConfig.unpacked_images)",
        "unpack lab.sif",
        "unpack lab.sif --json",
    )
    unpack.add_argument("image", metavar="IMG", help="a .sif file, or the URI of an image that was pulled")
    unpack.add_argument(
        "--detach", action="store_true", help="print the task's id and do not wait: `jupyter apptainer tasks`"
    )
    unpack.add_argument("--json", action="store_true", help="print an object with image, path and size")
    unpack.set_defaults(func=_unpack)


def open_store(places: Places) -> CopyStore:
    """Return this account's copies. Raises SpecError for a setting that cannot be."""
    return find_store(load_settings(), places)


def find_copy(store: CopyStore, path: str) -> Copy | None:
    """Return the copy of the image at `path` as it is now. Raises what `check_image` does."""
    return store.find(check_image(path))


def describe_copy(copy: Copy) -> str:
    """Write it in a line."""
    used = datetime.fromtimestamp(copy.used_at).strftime("%Y-%m-%d %H:%M")
    return f"{copy.tree}, {format_bytes(copy.about.size_bytes)}, used {used}"


def _unpack(arguments: argparse.Namespace) -> int:
    engine, places = find_engine_and_places()
    started = unpack_now(find_image(places, arguments.image), engine, load_settings(), places)
    if arguments.detach:
        print(started.task.id)
        return 0
    made = show_task(places, started)
    if arguments.json:
        print_json(made)
        return 0
    print(made["path"])
    print_note(f"{format_bytes(made['size_bytes'])}: kernels of this image start from it now")
    return 0
