"""Which kernels get an ipykernel lent, and what is known about that: the wish of a kernel.json on one side, `images` on the other.

Overlays and binds may bring an ipykernel to an image that has none, so they are asked with the image before anything is lent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..engine.locate import EngineInfo
from ..engine.options import Bind, ContainerOptions
from ..engine.step import OnProgress
from ..errors import ImageLacksIpykernel
from ..images.lending import can_lend, find_lent, lend_ipykernel
from ..images.probe import PROBE_OPTIONS, ImageProbe, is_python_command, load_probe, probe_image
from ..places import Places
from .plan import find_shim_position
from .spec import ContainerSpec

IPYKERNEL = "ipykernel_launcher"


def needs_ipykernel(spec: ContainerSpec) -> bool:
    """Say whether the kernel's command runs ipykernel."""
    return is_python_command(spec.command) and IPYKERNEL in spec.command


def probe_kernel(
    engine: EngineInfo,
    spec: ContainerSpec,
    places: Places,
    environ: Mapping[str, str],
    *,
    is_fresh: bool = False,
    on_progress: OnProgress = lambda _: None,
) -> ImageProbe:
    """Return what the kernel finds: in its image, else in the image with its layers, else with an ipykernel that is lent.

    Raises what `probe_image` and `lend_ipykernel` do.
    """
    probe = probe_image(engine, spec.image, spec.command, places, environ, is_fresh=is_fresh)
    if probe.ipykernel or not needs_ipykernel(spec):
        return probe
    options = _build_options(spec)
    if options != PROBE_OPTIONS:
        probe = probe_image(engine, spec.image, spec.command, places, environ, options=options, is_fresh=is_fresh)
    if probe.ipykernel or (options != PROBE_OPTIONS and not can_lend(probe)):
        # It may still come by a way that only the start sees: PYTHONPATH in `env`.
        return probe
    if find_shim_position(spec.command) is None:
        raise ImageLacksIpykernel(
            f"the image {spec.image} has Python {probe.python_version}, but no ipykernel, and this command cannot be lent one",
            hint="write it as `python -m ipykernel_launcher -f {connection_file}`, or add to the image's recipe: "
            "`pip install ipykernel`",
        )
    return lend_ipykernel(
        engine,
        spec.image,
        spec.command,
        probe,
        places,
        environ,
        options=options,
        is_fresh=is_fresh,
        on_progress=on_progress,
    )


def load_known(engine: EngineInfo, spec: ContainerSpec, places: Places) -> ImageProbe | None:
    """Return what `probe_kernel` found earlier, as far as it is known; None where nothing is. Starts nothing.

    Without ipykernel and without `lent`: one will be lent, but has to be fetched first. Raises what `check_image` does.
    """
    probe = load_probe(engine, spec.image, spec.command, places)
    if probe is None or probe.ipykernel or not needs_ipykernel(spec):
        return probe
    options = _build_options(spec)
    layered = load_probe(engine, spec.image, spec.command, places, options=options)
    if layered is None or layered.ipykernel:
        return layered or probe
    return find_lent(engine, spec.image, spec.command, layered, places, options=options) or layered


def _build_options(spec: ContainerSpec) -> ContainerOptions:
    """Return the probe's options with the layers of the kernel that are files: a memory layer brings nothing."""
    overlays = tuple(f"{wish.path}:ro" for wish in spec.overlays if wish.kind == "file")
    binds = tuple(Bind(wish.source, wish.destination or wish.source, "ro") for wish in spec.binds)
    # As in the kernel's own start: a writable layer makes the engine see what was deleted in an ext3 overlay.
    return replace(PROBE_OPTIONS, overlays=overlays, binds=binds, writable_tmpfs=bool(overlays))
