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
from ..errors import (
    BindSourceNotFound,
    ConnectionImpossible,
    ImageLacksIpykernel,
    ImageLacksPython,
    ImageNotFound,
    OverlayBusy,
    OverlayNotFound,
    ProgramNotFound,
    SpecError,
)
from ..images.digest import check_digest
from ..images.identity import check_image
from ..images.probe import ImageProbe, is_python_command, probe_image
from ..instances.start import EngineFolders, find_engine_folders
from ..overlays.holder import find_holder, is_locked
from ..places import Places, find_places
from .connection import fits_socket
from .layers import Setting
from .limits import look_at_host
from .plan import LaunchContext, LaunchPlan, build_launch_plan
from .settle import settle_spec
from .spec import ContainerSpec, OverlayWish, is_uri

_IPYKERNEL = "ipykernel_launcher"


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
) -> Preparation:
    """Check `config` against this host and compute the plan. Blocking; the first time for an image it runs the image's Python.

    base_dir: the kernel.json's folder. environ: the server's variables with those of the request. notebook: the file whose metadata
    has a say. parameters: fields that were chosen for this start. is_dry: for `explain`: nothing is started, not even to ask the image.

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
    spec = settled.spec
    engine = get_engine(settings.engine_path or None)
    probe: ImageProbe | None = None
    if not is_dry:
        check_request(spec, places)
        probe = check_kernel(engine, spec, places, settings)
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
        nvidia=find_nvidia() if spec.nv is not False else NO_NVIDIA,
        host=look_at_host(spec.resources, engine, environ),
        extra_arguments=tuple(extra_arguments),
        ipython_dir=str(places.data / "ipython"),
        matplotlib_dir=str(places.cache / "matplotlib"),
    )
    folders = find_engine_folders(engine, os.environ, places.hostname)
    plan = build_launch_plan(spec, context)
    plan = replace(plan, warnings=settled.warnings + plan.warnings)
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


def check_request(spec: ContainerSpec, places: Places) -> None:
    """Look at everything on the host that the spec names. Starts nothing."""
    if is_uri(spec.image):
        raise ImageNotFound(
            f"{spec.image} is not on this machine yet, and a kernel's start does not wait for a download",
            hint=f"fetch it once, `apptainer pull FILE.sif {spec.image}`, and name the file in the kernel",
        )
    check_image(spec.image)
    if spec.digest:
        check_digest(spec.image, spec.digest, places)
    for overlay in spec.overlays:
        if overlay.kind == "file":
            check_overlay(overlay, places)
    for bind in spec.binds:
        if not os.path.exists(bind.source):
            raise BindSourceNotFound(f"the folder to bind does not exist: {bind.source}")
    if spec.home not in ("host", "none") and not os.path.isdir(spec.home):
        raise SpecError(f"home: {spec.home!r} is not a folder", hint="create it, or use `host` or `none`")


def check_overlay(overlay: OverlayWish, places: Places) -> None:
    """Look whether the overlay is there and free. The engine's own message would not say who uses it."""
    if not os.path.exists(overlay.path):
        raise OverlayNotFound(f"the overlay does not exist: {overlay.path}")
    if os.path.isdir(overlay.path) or not is_locked(overlay.path, for_writing=not overlay.is_read_only):
        return
    holder = find_holder(overlay.path, places)
    by = holder.describe() if holder else "a process that we may not look at"
    hint = "stop that kernel, or use a copy of the overlay"
    if holder and not holder.is_alive:
        hint = "its owner is gone: `jupyter apptainer gc` ends it"
    raise OverlayBusy(f"the overlay {overlay.path} is in use by {by}", hint=hint)


def check_kernel(
    engine: EngineInfo, spec: ContainerSpec, places: Places, settings: ApptainerConfig
) -> ImageProbe | None:
    """Ask the image whether it can run the kernel; the answer is kept until the image changes.

    Where layers or binds may bring the missing piece, a missing program or ipykernel is left to the start itself.
    """
    if not settings.check_image and settings.transport != "tcp":
        # Ports are only opened for a kernel that is known to encrypt them, so there it is always asked.
        return None
    try:
        probe = probe_image(engine, spec.image, spec.command, places, os.environ)
    except (ImageLacksPython, ProgramNotFound):
        if spec.overlays or spec.binds:
            return None
        raise
    needs_ipykernel = is_python_command(spec.command) and _IPYKERNEL in spec.command
    if needs_ipykernel and probe.ipykernel is None and not spec.overlays and not spec.binds:
        raise ImageLacksIpykernel(
            f"the image {spec.image} has Python {probe.python_version}, but no ipykernel",
            hint="add it to the image's recipe: `pip install ipykernel`",
        )
    return probe
