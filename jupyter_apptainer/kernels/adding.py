"""A new container kernel: the image is asked whether it can run it, then the kernelspec is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..config import ApptainerConfig
from ..engine.locate import get_engine
from ..images.probe import ImageProbe
from ..places import Places
from .kernelspecs import add_kernelspec, build_display_name, check_name, iter_kernelspecs
from .local_image import find_local_image
from .prepare import check_kernel, check_request
from .spec import ContainerSpec


@dataclass(frozen=True, kw_only=True)
class KernelRequest:
    """What somebody wants. display_name: None for one that is made up, of `title` where the language is not Python.

    The rest is as in `add_kernelspec`.
    """

    name: str
    spec: ContainerSpec
    display_name: str | None = None
    language: str = "python"
    scope: str | Path = "user"
    is_replacing: bool = False
    title: str | None = None
    logos: Path | None = None
    interrupt_mode: str | None = None
    metadata: Mapping[str, object] | None = None


@dataclass(frozen=True)
class AddedKernel:
    """What was written."""

    folder: Path
    display_name: str


def probe_request(
    spec: ContainerSpec,
    places: Places,
    settings: ApptainerConfig,
    *,
    on_progress: Callable[[str], None] = lambda _: None,
) -> ImageProbe | None:
    """Look at the host and ask the image. Paths in `spec` are absolute. Raises what keeps the kernel from starting."""
    local = find_local_image(spec, places)
    check_request(local, places)
    engine = get_engine(settings.engine_path or None, places=places)
    return check_kernel(engine, local, places, settings, on_progress=on_progress)


def write_request(request: KernelRequest, probe: ImageProbe | None) -> AddedKernel:
    """Write the kernelspec. probe: what the image said, if it was asked. Raises SpecError for a name that cannot be, or is taken."""
    name = check_name(request.name)
    is_python = request.language == "python"
    display_name = request.display_name or build_display_name(
        request.spec,
        name=name,
        language=request.language,
        version=probe.python_version if probe and is_python else None,
        title=None if is_python else request.title,
        taken={known.display_name for known in iter_kernelspecs() if known.name != name},
    )
    folder = add_kernelspec(
        name,
        request.spec,
        display_name=display_name,
        language=request.language,
        scope=request.scope,
        replace=request.is_replacing,
        debugger=bool(probe and probe.has_debugger and is_python),
        curve=bool(probe and probe.has_curve and is_python),
        logos=request.logos,
        interrupt_mode=request.interrupt_mode,
        metadata=request.metadata,
    )
    return AddedKernel(folder, display_name)
