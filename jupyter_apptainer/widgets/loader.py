"""All sections of the panel by their names, and one look at each of them for pages that nothing moves in."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..gpu import GpuReader, Sampler
from .context import PanelContext
from .model import Section
from .sections.gpu import build_gpu_section
from .sections.images import load_images
from .sections.instances import load_instances
from .sections.kernel import load_kernel
from .sections.overlays import load_overlays
from .sections.tasks import load_tasks

TITLES: Mapping[str, str] = {
    "kernel": "Kernel",
    "images": "Images",
    "overlays": "Overlays",
    "instances": "Instances",
    "gpu": "GPU",
    "tasks": "Tasks",
}
_LOADERS: Mapping[str, Callable[[PanelContext], Section]] = {
    "kernel": load_kernel,
    "images": load_images,
    "overlays": load_overlays,
    "instances": load_instances,
    "tasks": load_tasks,
}


def load_section(name: str, context: PanelContext, sampler: Sampler) -> Section:
    """Load one section now."""
    return build_gpu_section(sampler.latest, sampler) if name == "gpu" else _LOADERS[name](context)


def load_all(context: PanelContext) -> list[Section]:
    """Look once at everything."""
    with GpuReader(context.places, context.environ) as reader:
        report = reader.read()
    sections = {name: load(context) for name, load in _LOADERS.items()}
    sections["gpu"] = build_gpu_section(report, Sampler())
    return [sections[name] for name in TITLES]
