"""Unpacked copies of images for benchmarks: made before anything is measured, and in a folder that goes with the benchmark."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from traitlets.config import Config

from jupyter_apptainer.config import ApptainerConfig
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.instances.janitor import remove_tree
from jupyter_apptainer.kernels.unpacked import unpack_now
from jupyter_apptainer.places import find_places
from jupyter_apptainer.tasks.follow import wait_for_task

from .ways import Way

_LIMIT = "1T"


@contextmanager
def keep_copies(folder: Path) -> Iterator[Config]:
    """Give the settings with which copies lie in `folder`; they are removed at the end, whatever permissions they have."""
    copies = folder / "copies"
    copies.mkdir()
    try:
        yield Config({"ApptainerConfig": {"unpacked_images": _LIMIT, "unpacked_images_dir": str(copies)}})
    finally:
        remove_tree(str(copies))


def unpack(engine: EngineInfo, image: str, settings: Config) -> str:
    """Make the copy of an image and return its folder."""
    places = find_places(os.environ)
    started = unpack_now(image, engine, ApptainerConfig(config=settings), places)
    return str(wait_for_task(places, started.task.id)["path"])


def use_copies(way: Way, settings: Config) -> Way:
    """Return the way in which kernels start from copies."""
    merged = copy.deepcopy(way.settings)
    merged.merge(settings)
    return replace(way, settings=merged)
