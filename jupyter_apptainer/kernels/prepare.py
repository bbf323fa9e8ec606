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
from ..engine.host.gpu import NO_NVIDIA, find_nvidia
from ..engine.locate import EngineInfo, get_engine
from ..engine.step import OnProgress
from ..errors import (
    ApptainerError,
    BindSourceNotFound,
    ConnectionImpossible,
    ImageLacksPython,
    ProgramNotFound,
    SpecError,
)
from ..images.digest import check_digest
from ..images.identity import check_image
from ..images.probe import ImageProbe
from ..instances.start import EngineFolders, find_engine_folders
from ..places import Places, find_places
from .connection import fits_socket
from .layers import Setting
from .lent import load_known, needs_ipykernel, probe_kernel
from .limits import look_at_host
from .local_image import find_local_image, refuse_remote_image
from .overlays import apply_overlays, keep_existing, look_at_overlays, plan_overlays
from .plan import LaunchContext, LaunchPlan, build_launch_plan
from .settle import settle_spec
from .spec import ContainerSpec

_NOT_FETCHED = (
    "the image has no ipykernel: the first start fetches one to lend it, which adds `--lent` and a bind to these lines"
)


@dataclass(frozen=True)
class Preparation:
    """A plan, and what it was made from. settings: each value of the wish, and whether kernel.json, notebook or server has it."""

    spec: ContainerSpec
    settings: tuple[Setting, ...]
    plan: LaunchPlan
    probe: ImageProbe | None
    places: Places
    folders: EngineFolders
    environ: Mapping[str, str]


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
    on_progress: OnProgress = lambda _: None,
) -> Preparation:
    """Check `config` against this host and compute the plan. Blocking; the first time for an image it runs the image's Python.

    base_dir: the kernel.json's folder. environ: the server's variables with those of the request. notebook: the file whose metadata
    has a say. parameters: fields that were chosen for this start. is_dry: for `explain`: nothing is started, not even to ask the image.
    on_progress: told what takes long: an ipykernel that is fetched to lend it.

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
        check_request(spec, places, base_dir=base_dir, environ=environ)
        asked = keep_existing(spec, places, base_dir, environ)
        probe = check_kernel(engine, asked, places, settings, on_progress=on_progress)
        overlays = apply_overlays(engine, spec, places, base_dir, environ)
    token = secrets.token_hex(4)
    context = LaunchContext(
        engine=engine,
        kernel_id=kernel_id,
        instance_name=build_instance_name(kernel_id, token),
        cwd=cwd,
        home=environ.get("HOME") or os.path.expanduser("~"),
        engine_home=pwd.getpwuid(os.getuid()).pw_dir,
        private_dir=str(find_private_dir(places, token)),
        scratch_dir=str(places.scratch / token),
        environ=environ,
        kernelspec_env=kernelspec_env or {},
        lent=probe.lent if probe else None,
        nvidia=find_nvidia() if spec.nv is not False else NO_NVIDIA,
        host=look_at_host(spec.resources, engine, environ),
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
    return Preparation(spec, settled.settings, plan, probe, places, folders, environ)


def build_instance_name(kernel_id: str, token: str) -> str:
    """Return a name for an instance: ours by its prefix, unique by its token. A client may have chosen the kernel's id."""
    readable = "".join(char for char in kernel_id if char.isascii() and char.isalnum())[:8]
    return f"jpa-{readable or 'kernel'}-{token}"


def find_private_dir(places: Places, token: str) -> str:
    """Return a folder for sockets, short enough for them: below the runtime folder, else below /tmp."""
    for base in (str(places.runtime), f"/tmp/jpa-{os.getuid()}"):
        candidate = os.path.join(base, token)
        if fits_socket(candidate):
            return candidate
    raise ConnectionImpossible(f"the path {places.runtime} is too long for sockets", hint="unset XDG_RUNTIME_DIR")


def check_request(
    spec: ContainerSpec, places: Places, *, base_dir: str = "", environ: Mapping[str, str] | None = None
) -> None:
    """Look at everything on the host that the spec names. Starts nothing.

    base_dir: the kernelspec's folder, where there is one already.
    """
    refuse_remote_image(spec)
    check_image(spec.image)
    if spec.digest:
        check_digest(spec.image, spec.digest, places)
    look_at_overlays(spec, places, base_dir, environ or {})
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
