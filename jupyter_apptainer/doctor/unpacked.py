"""Whether unpacked copies of images can be made and used here, where the settings ask for some."""

from __future__ import annotations

from ..config import ApptainerConfig
from ..engine.host import Probe
from ..engine.locate import EngineInfo
from ..errors import SpecError
from ..images.unpack import find_disk_obstacle, find_engine_obstacle
from ..kernels.unpacked import find_store
from ..overlays.size import format_bytes
from ..places import Places

NAME = "unpacked copies"
_OFF = 'c.ApptainerConfig.unpacked_images = "0"  # in jupyter_apptainer_config.py: without copies'


def probe_unpacked(engine: EngineInfo, settings: ApptainerConfig, places: Places) -> list[Probe]:
    """Look at the settings, the engine and the disk; nothing where copies are off."""
    try:
        store = find_store(settings, places)
    except SpecError as error:
        return [Probe(NAME, "warn", error.message, error.hint)]
    if not store.limit_bytes:
        return []
    obstacle = find_engine_obstacle(engine) or find_disk_obstacle(store.folder)
    if obstacle:
        return [Probe(NAME, "warn", f"none is made or used: {obstacle}", _OFF)]
    copies = store.list_all()
    taken = format_bytes(sum(copy.about.size_bytes for copy in copies))
    return [Probe(NAME, "ok", f"{len(copies)} in {store.folder}, {taken} of {format_bytes(store.limit_bytes)}")]
