"""What stands between a kernelspec and a running kernel, one finding for each thing that has to be there.

Unlike `prepare`, which refuses a start at the first obstacle, this looks at everything, for `kernel list` and `kernel check`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..config import ApptainerConfig, load_config
from ..engine.locate import EngineInfo, find_engine
from ..engine.step import OnProgress
from ..errors import ApptainerError, EngineNotFound, ImageLacksPython, PolicyError, ProgramNotFound
from ..images.digest import check_digest
from ..images.identity import check_image
from ..images.lending import can_lend
from ..images.probe import ImageProbe, is_python_command
from ..overlays.ready import describe_fullness, look_at_overlay
from ..places import Places
from .kernelspecs import Kernelspec
from .lent import IPYKERNEL, load_known, probe_kernel
from .local_image import find_local_image
from .overlays import find_overlay_path, keep_existing, mark_image
from .settle import settle_spec
from .spec import ContainerSpec, OverlayWish

Status = Literal["ok", "unknown", "fail"]


@dataclass(frozen=True)
class Finding:
    """One thing that a kernel needs. topic: configuration, policy, engine, image, overlay, bind, home or kernel. hint: the fix.

    note: a few words worth knowing where all is well.
    """

    topic: str
    status: Status
    text: str
    hint: str | None = None
    note: str | None = None


def check_kernelspec(
    kernelspec: Kernelspec,
    places: Places,
    environ: Mapping[str, str],
    *,
    engine_path: str | None = None,
    is_deep: bool = False,
    on_progress: OnProgress = lambda _: None,
) -> tuple[Finding, ...]:
    """Return what is there and what is missing. Raises nothing.

    is_deep: ask the image itself, which takes a second or so, and fetch an ipykernel where one has to be lent; otherwise
    what was learned before is all there is to know.
    """
    try:
        spec = find_local_image(kernelspec.resolve(environ), places)
    except ApptainerError as error:
        return (_fail("configuration", error),)
    findings = [
        Finding("configuration", "ok", str(kernelspec.folder / "kernel.json")),
        *_check_policy(kernelspec, places, environ),
        *_check_host(spec, places, kernelspec.folder, environ),
    ]
    try:
        engine = find_engine(engine_path, environ=environ, places=places)
        if engine is None:
            raise EngineNotFound("no apptainer or singularity found on PATH or in our own folder")
    except ApptainerError as error:
        return (*findings, _fail("engine", error))
    findings.append(Finding("engine", "ok", f"{engine.flavour} {engine.version_text} ({engine.path})"))
    if all(finding.status == "ok" for finding in findings):
        asked = keep_existing(spec, places, str(kernelspec.folder), environ)
        findings.append(_check_kernel(engine, asked, places, environ, is_deep=is_deep, on_progress=on_progress))
    return tuple(findings)


def _check_policy(kernelspec: Kernelspec, places: Places, environ: Mapping[str, str]) -> Iterator[Finding]:
    try:
        settle_spec(
            kernelspec.config,
            base_dir=str(kernelspec.folder),
            environ=environ,
            settings=ApptainerConfig(config=load_config()),
            places=places,
            kernelspec_env=kernelspec.env,
        )
    except PolicyError as error:
        yield _fail("policy", error)
    except ApptainerError:
        # The image, for one, is looked at below.
        return


def _check_host(spec: ContainerSpec, places: Places, folder: Path, environ: Mapping[str, str]) -> Iterator[Finding]:
    try:
        image = check_image(spec.image)
        if spec.digest:
            check_digest(spec.image, spec.digest, places)
        yield Finding("image", "ok", f"{spec.image} ({image.kind})")
    except ApptainerError as error:
        yield _fail("image", error)
    if not spec.overlays:
        # Said here, because what `%pip install` says is pip's own.
        add = f"`jupyter apptainer kernel edit {folder.name} --overlay auto` adds a layer that can be written to"
        yield Finding("overlay", "ok", f"none, so the image is read-only, for %pip too; {add}")
    yield from (_check_overlay(wish, spec, places, str(folder), environ) for wish in spec.overlays)
    for bind in spec.binds:
        if os.path.exists(bind.source):
            yield Finding("bind", "ok", f"{bind.source} at {bind.destination or bind.source} ({bind.mode})")
        else:
            yield Finding("bind", "fail", f"{bind.source} does not exist", "create the folder, or remove the bind")
    if spec.home not in ("host", "none"):
        is_there = os.path.isdir(spec.home)
        yield Finding("home", "ok" if is_there else "fail", spec.home, None if is_there else "create this folder")


def _check_overlay(
    wish: OverlayWish, spec: ContainerSpec, places: Places, folder: str, environ: Mapping[str, str]
) -> Finding:
    if wish.kind == "tmpfs":
        return Finding("overlay", "ok", "in memory")
    if wish.kind == "auto" and wish.per == "notebook":
        return Finding("overlay", "ok", f"one for each notebook, in {places.overlays}")
    try:
        path = find_overlay_path(wish, places, folder, environ)
        if wish.kind == "auto" and not os.path.exists(path):
            return Finding("overlay", "ok", f"{path}, made at the first start")
        overlay = look_at_overlay(path, places, is_read_only=wish.is_read_only, image=mark_image(spec.image))
    except ApptainerError as error:
        return _fail("overlay", error)
    return Finding("overlay", "ok", describe_fullness(overlay) or path)


def _check_kernel(
    engine: EngineInfo,
    spec: ContainerSpec,
    places: Places,
    environ: Mapping[str, str],
    *,
    is_deep: bool,
    on_progress: OnProgress,
) -> Finding:
    try:
        if is_deep:
            probe: ImageProbe | None = probe_kernel(
                engine, spec, places, environ, is_fresh=True, on_progress=on_progress
            )
        else:
            probe = load_known(engine, spec, places)
    except (ImageLacksPython, ProgramNotFound) as error:
        if spec.overlays or spec.binds:
            return Finding("kernel", "unknown", error.message, "a layer or a bind has to bring it")
        return _fail("kernel", error)
    except ApptainerError as error:
        return _fail("kernel", error)
    if probe is None:
        return Finding("kernel", "unknown", "the image was not asked yet", "run `jupyter apptainer kernel check NAME`")
    return _judge(spec, probe)


def _judge(spec: ContainerSpec, probe: ImageProbe) -> Finding:
    if not is_python_command(spec.command):
        return Finding("kernel", "ok", probe.program)
    python = f"{probe.implementation} {probe.python_version} ({probe.python})"
    if IPYKERNEL not in spec.command:
        return Finding("kernel", "ok", python)
    if probe.problem:
        hint = "install it anew in the image: `pip install --force-reinstall ipykernel`"
        return Finding("kernel", "fail", f"{python}, but ipykernel cannot be imported: {probe.problem}", hint)
    if probe.ipykernel is None:
        may_be_added = bool(spec.overlays or spec.binds)
        if can_lend(probe):
            hint = "`jupyter apptainer kernel check NAME` fetches it ahead; otherwise the first start does"
            return Finding("kernel", "unknown", f"{python}, and an ipykernel is to be lent", hint)
        return Finding(
            "kernel",
            "unknown" if may_be_added else "fail",
            f"{python}, but no ipykernel in the image",
            "a layer or a bind has to bring it"
            if may_be_added
            else "add to the image's recipe: `pip install ipykernel`",
        )
    debugger = f"debugpy {probe.debugpy}" if probe.debugpy else "no debugger (debugpy is not installed)"
    if probe.lent:
        lent = f"ipykernel lent ({probe.ipykernel}, {probe.abi})"
        return Finding("kernel", "ok", f"{python}, {lent}, {debugger}", note=lent)
    return Finding("kernel", "ok", f"{python}, ipykernel {probe.ipykernel}, {debugger}")


def _fail(topic: str, error: ApptainerError) -> Finding:
    return Finding(topic, "fail", error.message, error.hint)
