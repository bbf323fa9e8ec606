"""All sections of the panel by their names, and one look at each of them for pages that nothing moves in."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..gpu import Sampler
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
    "images": load_images,
    "overlays": load_overlays,
    "instances": load_instances,
    "tasks": load_tasks,
}


# They show what the sampler has read; on the others nobody looks at GPUs.
WITH_GPUS = frozenset({"kernel", "gpu"})


def load_section(name: str, context: PanelContext, sampler: Sampler) -> Section:
    """Load one section now. GPUs are as the sampler has seen them last: a driver may take seconds to answer."""
    if name == "gpu":
        return build_gpu_section(sampler.latest, sampler)
    return load_kernel(context, sampler.latest) if name == "kernel" else _LOADERS[name](context)


def load_all(context: PanelContext, sampler: Sampler) -> list[Section]:
    """Load all of them."""
    return [load_section(name, context, sampler) for name in TITLES]
