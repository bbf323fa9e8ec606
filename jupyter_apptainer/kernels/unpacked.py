"""Starts from unpacked copies of images: when a copy is used instead of the image, how it is kept from going meanwhile, when one is made.

Whatever a person sees names the image. A copy is used only where the kernel finds the same in it, and `explain` says why, or why not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import ApptainerConfig
from ..engine.locate import EngineInfo
from ..errors import ApptainerError, SpecError
from ..images.copies import CopyStore
from ..images.identity import check_image
from ..images.unpack import find_engine_obstacle, find_obstacle, plan_unpack
from ..instances import ledger
from ..instances.model import LedgerEntry
from ..overlays.ext3 import MIB
from ..overlays.size import parse_size_mib
from ..places import Places
from ..policy import load_policies
from ..tasks.start import Started, start_task
from ..tasks.store import iter_tasks
from .judge import needs_digest, needs_signers
from .plan import LaunchPlan
from .spec import ContainerSpec

# A copy that could not be made is not tried again with every start.
_AGAIN_AFTER_S = 86400.0


@dataclass(frozen=True)
class Choice:
    """What a kernel starts from. tree: the copy's folder; None: the image itself. note: why, for `explain`; empty where copies are off."""

    tree: str | None = None
    note: str = ""


def find_store(settings: ApptainerConfig, places: Places) -> CopyStore:
    """Return this user's copies, as the settings have them. Raises SpecError for a size or a folder that cannot be."""
    return CopyStore(_find_folder(settings, places), _parse_limit(settings.unpacked_images), places)


def choose_copy(spec: ContainerSpec, engine: EngineInfo, settings: ApptainerConfig, places: Places) -> Choice:
    """Choose what a kernel starts from. spec: with its overlays as files. Nothing that is wrong here keeps a kernel from starting."""
    try:
        store = find_store(settings, places)
        if not store.limit_bytes:
            return Choice()
        image = check_image(spec.image)
        copy = store.find(image)
        reason = _find_wish(spec, settings)
        reason = reason or (find_engine_obstacle(engine) if copy else find_obstacle(engine, image, store.folder))
    except ApptainerError as error:
        return Choice(note=f"no unpacked copy is used: {error.message}")
    if reason:
        return Choice(note=f"no unpacked copy is used: {reason}")
    if copy is None:
        return Choice(
            note="there is no unpacked copy of it yet; one is made after a start, and `jupyter apptainer tasks` tells how that went"
        )
    return Choice(str(copy.tree), f"its unpacked copy {copy.tree} is started, which takes less time")


def claim_copy(plan: LaunchPlan, entry: LedgerEntry, places: Places) -> tuple[str, LedgerEntry]:
    """Return what the engine shall start, and the kernel's entry in the ledger, which says so. A copy with an entry does not go."""
    if plan.unpacked is None:
        return plan.image, entry
    store = CopyStore(Path(plan.unpacked).parents[1], 0, places)
    try:
        with store.lock():
            # The plan may be older than the image: a restart takes the plan of the first start.
            copy = store.find(check_image(plan.image))
            if copy is not None and str(copy.tree) == plan.unpacked:
                ledger.save_entry(places, entry)
                store.touch(copy)
                return plan.unpacked, entry
    except (ApptainerError, OSError):
        # The engine says what is wrong with the image.
        pass
    return plan.image, replace(entry, unpacked="")


def request_copy(
    plan: LaunchPlan, spec: ContainerSpec, settings: ApptainerConfig, places: Places, environ: Mapping[str, str]
) -> Started | None:
    """Have the image of a kernel that has started unpacked in the background, where that is wished and of use; None where not. Blocking.

    Raises SpecError for a wrong setting, and what `start_task` does.
    """
    store = find_store(settings, places)
    if not store.limit_bytes or plan.unpacked is not None or _find_wish(spec, settings):
        return None
    image = check_image(plan.image)
    if store.find(image) or find_obstacle(plan.engine, image, store.folder):
        return None
    task = plan_unpack(image, store, engine=plan.engine.path)
    since = time.time() - _AGAIN_AFTER_S
    is_tried = any(
        (known.spec.target, known.spec.fingerprint) == (task.target, task.fingerprint)
        and known.created_at > since
        and (known.state in ("failed", "cancelled"))
        for known in iter_tasks(places)
    )
    return None if is_tried else start_task(places, task, environ=environ, settings=settings)


def unpack_now(image: str, engine: EngineInfo, settings: ApptainerConfig, places: Places) -> Started:
    """Start the task that makes a copy of an image, or join it. Raises SpecError where copies are off, and what `check_image` does."""
    store = find_store(settings, places)
    if not store.limit_bytes:
        raise SpecError(
            "unpacked copies are off: ApptainerConfig.unpacked_images allows them no disk",
            hint='write `c.ApptainerConfig.unpacked_images = "20G"` into jupyter_apptainer_config.py',
        )
    return start_task(
        places, plan_unpack(check_image(image), store, engine=engine.path), environ=os.environ, settings=settings
    )


def _find_wish(spec: ContainerSpec, settings: ApptainerConfig) -> str:
    """Return what the kernel asks for, or a policy, that only the image's file can give."""
    if spec.extra_flags:
        return "`extra_flags` may ask for what only the image's file can do"
    files = [wish for wish in spec.overlays if wish.kind == "file"]
    if not all(_is_ext3(wish.path) for wish in files):
        return "an overlay is no ext3 file"
    if spec.overlays and not files:
        # Measured with Apptainer 1.4.5: it then leaves the layer to Linux' overlayfs, in whose memory folders cannot be removed.
        return "a layer in memory alone behaves differently on top of it"
    if any(needs_digest(rules) or needs_signers(rules) for rules in load_policies(settings.config)):
        return "a policy asks for the digest or the signature of the image's file"
    return ""


def _is_ext3(path: str) -> bool:
    try:
        # One that does not exist yet is made at the start, as ext3.
        return not os.path.lexists(path) or check_image(path).kind == "ext3"
    except ApptainerError:
        return False


def _parse_limit(text: str) -> int:
    try:
        return parse_size_mib(text.strip() or "0", least_mib=0) * MIB
    except SpecError as error:
        raise SpecError(
            f"ApptainerConfig.unpacked_images: {error.message}", hint='for example "20G", or "0" for none'
        ) from error


def _find_folder(settings: ApptainerConfig, places: Places) -> Path:
    """Return the folder of this host: what is in use is known of this host only, and the folder above may be shared."""
    if not settings.unpacked_images_dir:
        return places.cache / "unpacked" / places.hostname
    chosen = Path(os.path.expandvars(os.path.expanduser(settings.unpacked_images_dir)))
    if not chosen.is_absolute() or "$" in str(chosen):
        raise SpecError(
            f"ApptainerConfig.unpacked_images_dir: {settings.unpacked_images_dir!r} is no absolute path here",
            hint='for example "/scratch/$USER"',
        )
    return chosen / f"jpa-{os.getuid()}" / "unpacked" / places.hostname
