"""What stands between a kernelspec and a running kernel, one finding for each thing that has to be there.

Unlike `prepare`, which refuses a start at the first obstacle, this looks at everything, for `kernel list` and `kernel check`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from ..config import ApptainerConfig, load_config
from ..engine.locate import EngineInfo, find_engine
from ..engine.step import OnProgress
from ..errors import ApptainerError, EngineNotFound, ImageLacksPython, PolicyError, ProgramNotFound
from ..images.digest import check_digest
from ..images.identity import check_image
from ..images.lending import can_lend
from ..images.probe import ImageProbe, is_python_command
from ..places import Places
from .kernelspecs import Kernelspec
from .lent import IPYKERNEL, load_known, probe_kernel
from .prepare import check_overlay
from .settle import settle_spec
from .spec import ContainerSpec

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
        spec = kernelspec.resolve(environ)
    except ApptainerError as error:
        return (_fail("configuration", error),)
    findings = [
        Finding("configuration", "ok", str(kernelspec.folder / "kernel.json")),
        *_check_policy(kernelspec, places, environ),
    ]
    findings += _check_host(spec, places)
    try:
        engine = find_engine(engine_path, environ=environ, places=places)
        if engine is None:
            raise EngineNotFound("no apptainer or singularity found on PATH or in our own folder")
    except ApptainerError as error:
        return (*findings, _fail("engine", error))
    findings.append(Finding("engine", "ok", f"{engine.flavour} {engine.version_text} ({engine.path})"))
    if all(finding.status == "ok" for finding in findings):
        findings.append(_check_kernel(engine, spec, places, environ, is_deep=is_deep, on_progress=on_progress))
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


def _check_host(spec: ContainerSpec, places: Places) -> Iterator[Finding]:
    try:
        image = check_image(spec.image)
        if spec.digest:
            check_digest(spec.image, spec.digest, places)
        yield Finding("image", "ok", f"{spec.image} ({image.kind})")
    except ApptainerError as error:
        yield _fail("image", error)
    for overlay in spec.overlays:
        try:
            if overlay.kind == "file":
                check_overlay(overlay, places)
            yield Finding("overlay", "ok", overlay.path or "in memory")
        except ApptainerError as error:
            yield _fail("overlay", error)
    for bind in spec.binds:
        if os.path.exists(bind.source):
            yield Finding("bind", "ok", f"{bind.source} at {bind.destination or bind.source} ({bind.mode})")
        else:
            yield Finding("bind", "fail", f"{bind.source} does not exist", "create the folder, or remove the bind")
    if spec.home not in ("host", "none"):
        is_there = os.path.isdir(spec.home)
        yield Finding("home", "ok" if is_there else "fail", spec.home, None if is_there else "create this folder")


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
