"""Write a container kernel from all that is known of it: for `kernel add` and `kernel discover`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from ..config import ApptainerConfig, load_config
from ..images.probe import ImageProbe
from ..kernels.adding import KernelRequest, probe_request, write_request
from ..kernels.kernelspecs import check_name, iter_kernelspecs
from ..kernels.spec import ContainerSpec, parse_container_spec, resolve_paths
from ..places import find_places
from .kernel_sources import Source
from .output import print_note
from .progress import show_progress


def merge_config(source: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """Return the source's settings with those of the command line, which come first; variables of both count."""
    merged = {**source, **given}
    both = [config["env"] for config in (source, given) if isinstance(config.get("env"), dict)]
    if both:
        merged["env"] = {name: value for env in both for name, value in env.items()}  # type: ignore[attr-defined]  # dicts, by the line above
    return merged


def write_kernel(name: str, given: Mapping[str, object], source: Source, arguments: argparse.Namespace) -> Path:
    """Check the kernel against the image, write it, tell its name, and return its folder. Raises SpecError and what the image lacks."""
    origin = f"the command line and {source.origin}" if source.origin else "the command line"
    spec = parse_container_spec(merge_config(source.config, given), origin=origin)
    language = getattr(arguments, "language", None) or source.language or "python"
    request = KernelRequest(
        name=check_name(name),
        spec=spec,
        display_name=getattr(arguments, "display_name", None),
        language=language,
        scope=arguments.scope,
        is_replacing=arguments.replace,
        title=source.display_name,
        logos=source.logos,
        interrupt_mode=source.interrupt_mode,
        metadata=source.metadata,
    )
    probe = None if arguments.no_check else probe_spec(resolve_paths(spec, os.getcwd(), os.environ))
    added = write_request(request, probe)
    print_note(f'Jupyter shows the kernel as "{added.display_name}".')
    if not any(known.folder == added.folder for known in iter_kernelspecs()):
        print_note(
            "This Jupyter does not look there, or finds another kernel of that name first: see `jupyter --paths`."
        )
    return added.folder


def probe_spec(spec: ContainerSpec) -> ImageProbe | None:
    """Look at the host and ask the image. Paths in `spec` are absolute."""
    with show_progress() as on_progress:
        return probe_request(spec, find_places(), ApptainerConfig(config=load_config()), on_progress=on_progress)
