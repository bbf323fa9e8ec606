"""Find and remove what pulls and builds that were killed have left, and what is kept about images that are gone. Never an image."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..engine.environment import build_engine_environment
from ..engine.image_commands import build_cache_clean
from ..engine.locate import EngineInfo
from ..engine.runner import Runner
from ..errors import TaskLost
from ..instances.janitor import remove_tree
from ..places import Places
from ..tasks.stop import end_strays
from ..tasks.store import iter_tasks, save_task
from .build_secrets import find_left_secrets
from .catalogue import find_stale_contents
from .copies import CopyStore
from .layering.store import find_store
from .records import iter_records, remove_record
from .starter import remove_build_folder
from .transfer import find_parts

# An engine that is asked to end removes its temporary folders first.
_STRAY_S = 30.0


@dataclass(frozen=True)
class Leftover:
    """path: what would be removed, or the image that something is remembered about. why: in words. size_bytes: of the file."""

    path: str
    why: str
    size_bytes: int = 0


def clean_images(
    places: Places, folders: Iterable[Path], *, copies: CopyStore | None = None, is_dry: bool = False
) -> list[Leftover]:
    """Remove leftovers and return them. copies: unpacked ones, to be looked at too. is_dry: only look."""
    found = [*_clean_parts([*folders, places.scratch], is_dry), *_clean_records(places, is_dry)]
    for path in find_left_secrets(places):
        found.append(Leftover(str(path), "secrets of a build that was killed"))
        if not is_dry:
            remove_tree(str(path))
    found += _clean_lost_tasks(places, is_dry)
    store = find_store(places)
    found += [Leftover(str(path), "half a layer of a build that was killed") for path in store.find_leftovers()]
    if not is_dry:
        store.remove_leftovers()
    found += _clean_copies(copies, is_dry) if copies else []
    for path in find_stale_contents(places):
        found.append(
            Leftover(str(path), "what is kept about an image that has changed or is gone", path.stat().st_size)
        )
        if not is_dry:
            path.unlink(missing_ok=True)
    return found


def clean_engine_cache(engine: EngineInfo, environ: Mapping[str, str]) -> None:
    """Empty the engine's own cache: layers of images that were pulled or built, which are fetched again if needed."""
    Runner().run(build_cache_clean(engine, build_engine_environment(environ)))


def _clean_copies(copies: CopyStore, is_dry: bool) -> list[Leftover]:
    found = [
        Leftover(str(path), "half an unpacked copy of an image, whose maker was killed")
        for path in copies.find_leftovers()
    ]
    stale = [copy for copy in copies.list_all() if not copy.is_current] if is_dry else copies.drop_stale()
    if not is_dry:
        copies.remove_leftovers()
    why = "the unpacked copy of an image that has changed or is gone"
    return found + [Leftover(str(copy.path), why, copy.about.size_bytes) for copy in stale]


def _clean_parts(folders: Iterable[Path], is_dry: bool) -> list[Leftover]:
    found = []
    for path in (path for folder in folders for path in find_parts(folder)):
        files = [path, *path.rglob("*")]
        size = sum(each.lstat().st_size for each in files if each.is_file())
        found.append(Leftover(str(path), "half an image of a pull that was killed", size))
        if not is_dry:
            remove_build_folder(path) if path.is_dir() else path.unlink(missing_ok=True)
    return found


def _clean_lost_tasks(places: Places, is_dry: bool) -> list[Leftover]:
    """Remove what tasks have left whose process was killed, when all that they had started has ended."""
    lost = [task for task in iter_tasks(places) if task.made and (task.error or {}).get("code") == TaskLost.code]
    if lost and not is_dry:
        active = {task.id for task in iter_tasks(places) if not task.is_over}
        for process in end_strays(places, active):
            process.wait_gone(_STRAY_S)
    found = []
    for task in lost:
        paths = [Path(path) for path in task.made if os.path.lexists(path)]
        found += [Leftover(str(path), f"half-made by a task that was killed: {task.spec.title}") for path in paths]
        if not is_dry:
            for path in paths:
                remove_build_folder(path) if path.is_dir() else path.unlink(missing_ok=True)
            save_task(places, replace(task, made=()))
    return found


def _clean_records(places: Places, is_dry: bool) -> list[Leftover]:
    found = []
    for record in iter_records(places):
        if not record.is_current:
            found.append(Leftover(record.path, f"remembered as {record.uri}, but it has changed or is gone"))
            if not is_dry:
                remove_record(places, record.path)
    return found
