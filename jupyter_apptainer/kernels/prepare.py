"""What has to be known and checked on this host before a plan can be made: one function for all doors.

Everything that would fail later with a riddle is refused here with a sentence: image, overlays, binds, home, Python.
"""

from __future__ import annotations

import os
import pwd
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..config import ApptainerConfig
from ..engine.fuse_programs import find_config
from ..engine.host.gpu import NO_NVIDIA, find_nvidia
from ..engine.locate import EngineInfo, get_engine
from ..engine.step import OnProgress
from ..errors import (
    ApptainerError,
    BindSourceNotFound,
    ImageLacksPython,
    ProgramNotFound,
    SpecError,
)
from ..images.digest import check_digest
from ..images.identity import check_image
from ..images.probe import ImageProbe
from ..instances.start import EngineFolders, find_engine_folders
from ..places import Places, find_places
from .forking import ForkLimits, find_obstacle
from .layers import Setting
from .lent import load_known, needs_ipykernel, probe_kernel
from .limits import has_memory_to_spare, look_at_host
from .local_image import find_local_image, refuse_remote_image
from .names import build_names
from .overlays import OverlaySetup, apply_overlays, find_changed_folders, keep_existing, look_at_overlays, plan_overlays
from .plan import LaunchContext, LaunchPlan, build_launch_plan
from .progress import SILENT, Progress
from .settle import settle_spec
from .shared import find_running
from .spec import ContainerSpec, find_shared_name

_NOT_FETCHED = (
    "the image has no ipykernel: the first start fetches one to lend it, which adds `--lent` and a bind to these lines"
)


@dataclass(frozen=True)
class Preparation:
    """A plan, and what it was made from. settings: each value of the wish, and whether kernel.json, notebook or server has it.

    final: the wish with the overlays as they are used.
    """

    spec: ContainerSpec
    settings: tuple[Setting, ...]
    plan: LaunchPlan
    probe: ImageProbe | None
    places: Places
    folders: EngineFolders
    environ: Mapping[str, str]
    final: ContainerSpec
    context: LaunchContext


def prepare_launch(
    config: Mapping[str, object],
    *,
    settings: ApptainerConfig,
    kernel_id: str,
    cwd: str,
    environ: Mapping[str, str],
    base_dir: str,
    kernelspec_env: Mapping[str, str] | None = None,
    extra_arguments: Sequence[str] = (),
    notebook: str | None = None,
    parameters: Mapping[str, object] | None = None,
    is_dry: bool = False,
    token: str | None = None,
    on_progress: OnProgress = lambda _: None,
    progress: Progress = SILENT,
) -> Preparation:
    """Check `config` against this host and compute the plan. Blocking; the first time for an image it runs the image's Python.

    base_dir: the kernel.json's folder. environ: the server's variables with those of the request. notebook: the file whose metadata
    has a say. parameters: fields that were chosen for this start. is_dry: for `explain`: nothing is started, not even to ask the image.
    token: of an earlier start, whose sockets clients go on using.
    on_progress: told what takes long: an ipykernel that is fetched to lend it. progress: is told of the phases `image` and `overlay`.

    Raises SpecError and whatever forbids a start: EngineNotFound, ImageNotFound, OverlayBusy, ImageLacksPython, …
    """
    places = find_places()
    settled = settle_spec(
        config,
        base_dir=base_dir,
        environ=environ,
        settings=settings,
        places=places,
        kernelspec_env=kernelspec_env,
        notebook=notebook,
        parameters=parameters,
    )
    spec = find_local_image(settled.spec, places)
    engine = get_engine(settings.engine_path or None)
    probe: ImageProbe | None = None
    if is_dry:
        overlays = plan_overlays(spec, places, base_dir, environ)
        asked = keep_existing(spec, places, base_dir, environ)
        probe = _find_known(engine, asked, places) if is_asked(settings) else None
    else:
        with progress.phase("image"):
            check_image_wish(spec, places)
            check_paths(spec)
            overlays, probe = _get_ready(engine, spec, places, settings, base_dir, environ, progress, on_progress)
    names = build_names(places, kernel_id, token or secrets.token_hex(4), find_shared_name(spec))
    unpacked, unpacked_note = _choose_copy(overlays.spec, engine, settings, places)
    context = LaunchContext(
        engine=engine,
        kernel_id=kernel_id,
        entry_name=names.entry,
        instance_name=names.instance,
        instance_dir=names.instance_dir,
        cwd=cwd,
        home=environ.get("HOME") or os.path.expanduser("~"),
        engine_home=pwd.getpwuid(os.getuid()).pw_dir,
        private_dir=names.private_dir,
        scratch_dir=names.scratch_dir,
        environ=environ,
        kernelspec_env=kernelspec_env or {},
        lent=probe.lent if probe else None,
        nvidia=find_nvidia() if spec.nv is not False else NO_NVIDIA,
        host=look_at_host(spec.resources, engine, environ),
        fork_obstacle=find_obstacle(spec, probe, is_wanted=settings.fork_kernels, has_memory=has_memory_to_spare()),
        fork_limits=ForkLimits(settings.fork_rest_s, settings.spare_kernels, settings.spare_idle_s),
        bundle=probe.bundle if probe else None,
        is_sandbox=os.path.isdir(spec.image),
        engine_config=find_config(engine, places, is_dry=is_dry),
        changed=find_changed_folders(overlays.spec, probe.plain_folders if probe else ()),
        unpacked=unpacked,
        unpacked_note=unpacked_note,
        fakeroot=overlays.mode == "fakeroot",
        extra_arguments=tuple(extra_arguments),
        ipython_dir=str(places.data / "ipython"),
        matplotlib_dir=str(places.cache / "matplotlib"),
    )
    folders = find_engine_folders(engine, os.environ, places.hostname)
    plan = build_launch_plan(overlays.spec, context)
    warnings = settled.warnings + plan.warnings + overlays.notes
    if is_dry and probe and needs_ipykernel(spec) and probe.ipykernel is None:
        warnings += (_NOT_FETCHED,)
    plan = replace(plan, warnings=warnings)
    return Preparation(
        spec, settled.settings, plan, probe, places, folders, environ, final=overlays.spec, context=context
    )


def _choose_copy(
    spec: ContainerSpec, engine: EngineInfo, settings: ApptainerConfig, places: Places
) -> tuple[str | None, str]:
    """Return the unpacked copy to start from, None for the image itself; and why."""
    if settings.unpacked_images in ("", "0"):
        return None, ""
    # Loaded only where it is wished for: the first start of a server waits for what this imports.
    from .unpacked import choose_copy

    found = choose_copy(spec, engine, settings, places)
    return found.tree, found.note


def read_wish(
    config: Mapping[str, object],
    *,
    settings: ApptainerConfig,
    environ: Mapping[str, str],
    base_dir: str,
    kernelspec_env: Mapping[str, str] | None = None,
    notebook: str | None = None,
    parameters: Mapping[str, object] | None = None,
) -> ContainerSpec:
    """Return what a start wants of this host, its overlays as files, whether any of it is there or not. Starts nothing.

    Parameters are those of `prepare_launch`. Raises SpecError and PolicyError.
    """
    places = find_places()
    settled = settle_spec(
        config,
        base_dir=base_dir,
        environ=environ,
        settings=settings,
        places=places,
        kernelspec_env=kernelspec_env,
        notebook=notebook,
        parameters=parameters,
    )
    return plan_overlays(find_local_image(settled.spec, places), places, base_dir, environ).spec


def _get_ready(
    engine: EngineInfo,
    spec: ContainerSpec,
    places: Places,
    settings: ApptainerConfig,
    base_dir: str,
    environ: Mapping[str, str],
    progress: Progress,
    on_progress: OnProgress,
) -> tuple[OverlaySetup, ImageProbe | None]:
    """Make the overlays ready, and ask the image with them."""
    asked = keep_existing(spec, places, base_dir, environ)
    if find_running(places, spec):
        # The overlays are in use by the instance that the kernel will join: nobody else can look into them.
        known = _find_known(engine, asked, places) if is_asked(settings) else None
        return plan_overlays(spec, places, base_dir, environ), known
    with progress.phase("overlay", is_shown=bool(spec.overlays)):
        look_at_overlays(spec, places, base_dir, environ)
        probe = check_kernel(engine, asked, places, settings, on_progress=on_progress)
        return apply_overlays(engine, spec, places, base_dir, environ), probe


def check_request(
    spec: ContainerSpec, places: Places, *, base_dir: str = "", environ: Mapping[str, str] | None = None
) -> None:
    """Look at everything on the host that the spec names. Starts nothing.

    base_dir: the kernelspec's folder, where there is one already.
    """
    check_image_wish(spec, places)
    if not find_running(places, spec):
        look_at_overlays(spec, places, base_dir, environ or {})
    check_paths(spec)


def check_image_wish(spec: ContainerSpec, places: Places) -> None:
    """Look whether the image is there, and is one."""
    refuse_remote_image(spec)
    check_image(spec.image)
    if spec.digest:
        check_digest(spec.image, spec.digest, places)


def check_paths(spec: ContainerSpec) -> None:
    """Look whether the binds and the home are there."""
    for bind in spec.binds:
        if not os.path.exists(bind.source):
            raise BindSourceNotFound(f"the folder to bind does not exist: {bind.source}")
    if spec.home not in ("host", "none") and not os.path.isdir(spec.home):
        raise SpecError(f"home: {spec.home!r} is not a folder", hint="create it, or use `host` or `none`")


def check_kernel(
    engine: EngineInfo,
    spec: ContainerSpec,
    places: Places,
    settings: ApptainerConfig,
    *,
    on_progress: OnProgress = lambda _: None,
) -> ImageProbe | None:
    """Ask the image whether it can run the kernel; the answer is kept until the image changes.

    Where it lacks nothing but ipykernel, one is lent to it; the first time for a Python that takes some seconds.

    Where layers or binds may bring the program, its absence is left to the start itself.
    """
    if not is_asked(settings):
        return None
    try:
        return probe_kernel(engine, spec, places, os.environ, on_progress=on_progress)
    except (ImageLacksPython, ProgramNotFound):
        if spec.overlays or spec.binds:
            return None
        raise


def is_asked(settings: ApptainerConfig) -> bool:
    """Say whether images are asked at all. Ports are only opened for a kernel that is known to encrypt them: then always."""
    return settings.check_image or settings.transport == "tcp"


def _find_known(engine: EngineInfo, spec: ContainerSpec, places: Places) -> ImageProbe | None:
    try:
        return load_known(engine, spec, places)
    except ApptainerError:
        # An image that is not there can still be explained.
        return None
