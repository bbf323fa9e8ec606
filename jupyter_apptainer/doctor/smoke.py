"""The proof: an instance of a real image is started, Python imports ipykernel in it, and it is ended. Each step is timed."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from ..engine.environment import build_engine_environment
from ..engine.host import Probe
from ..engine.locate import EngineInfo
from ..engine.options import ContainerOptions, build_exec, build_instance_start
from ..engine.runner import AsyncRunner
from ..errors import ApptainerError, ProgramNotFound
from ..instances.janitor import end_entry
from ..instances.model import LedgerEntry
from ..instances.process import ProcessIdentity
from ..instances.start import find_engine_folders, reap, start_instance
from ..kernels.kernelspecs import iter_kernelspecs
from ..kernels.local_image import find_local_image
from ..places import Places

NAME = "trial run"
_TIMEOUT_S = 60.0
# Neither the home folder nor the working folder has a say.
_OPTIONS = ContainerOptions(home="none", isolation="contain")


def find_image(places: Places, environ: Mapping[str, str]) -> str | None:
    """Return an image to try: that of one of our kernels, else one in our own folder."""
    for kernelspec in iter_kernelspecs():
        try:
            image = find_local_image(kernelspec.resolve(environ), places).image
        except ApptainerError:
            continue
        if os.path.exists(image):
            return image
    return next((str(path) for path in sorted(places.images.glob("*.sif"))), None)


async def try_image(engine: EngineInfo, places: Places, environ: Mapping[str, str], image: str | None) -> Probe:
    """Start, use and end an instance of `image`. Raises nothing; nothing stays."""
    image = image or find_image(places, environ)
    if image is None:
        return Probe(NAME, "warn", "there is no image to try", "jupyter apptainer quickstart")
    try:
        phases, problem = await _run(
            engine, places, environ, os.path.abspath(image) if os.path.exists(image) else image
        )
    except ApptainerError as error:
        return Probe(NAME, "fail", f"{image}: {error.message}", error.hint)
    times = ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in phases.items())
    if problem is not None:
        return _explain(problem, f"{image} starts and ends ({times})")
    return Probe(NAME, "ok", f"{image}: {times}")


def _explain(problem: ApptainerError, what: str) -> Probe:
    if isinstance(problem, ProgramNotFound):
        return Probe(NAME, "warn", f"{what}, but has no python", "choose an image with Python: --image IMG")
    if any("No module named" in line for line in problem.log_tail):
        fix = "add `pip install ipykernel` to the %post section of its definition file"
        return Probe(NAME, "warn", f"{what}, but its Python has no ipykernel", fix)
    return Probe(NAME, "fail", f"{what}, but Python does not run in it: {problem.message}", problem.hint)


async def _run(
    engine: EngineInfo, places: Places, environ: Mapping[str, str], image: str
) -> tuple[dict[str, float], ApptainerError | None]:
    env = build_engine_environment(environ, {"PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1"})
    folder = tempfile.mkdtemp(prefix="jpa-doctor-")
    entry = _build_entry(engine, places, environ, image, folder)
    phases: dict[str, float] = {}
    problem: ApptainerError | None = None
    began = time.monotonic()
    try:
        command = build_instance_start(engine, image, entry.name, _OPTIONS, env)
        started = await start_instance(command, entry, places, log_path=str(Path(folder, "log")), timeout_s=_TIMEOUT_S)
        phases["start"] = time.monotonic() - began
        try:
            await AsyncRunner().run(
                build_exec(
                    engine,
                    f"instance://{entry.name}",
                    ("python", "-c", "import ipykernel"),
                    env,
                    cwd="/",
                    timeout_s=_TIMEOUT_S,
                )
            )
        except ApptainerError as error:
            problem = error
        phases["import ipykernel"] = time.monotonic() - began - sum(phases.values())
        end_entry(places, entry)
        phases["stop"] = time.monotonic() - began - sum(phases.values())
        await reap(started.process)
    finally:
        # Where anything above was cut off; ending twice is no error.
        end_entry(places, entry)
        shutil.rmtree(folder, ignore_errors=True)
    return phases, problem


def _build_entry(
    engine: EngineInfo, places: Places, environ: Mapping[str, str], image: str, folder: str
) -> LedgerEntry:
    folders = find_engine_folders(engine, environ, places.hostname)
    return LedgerEntry(
        name=f"jpa-doctor-{secrets.token_hex(4)}",
        image=image,
        owner=ProcessIdentity.current(),
        kernel_id="",
        label="doctor",
        started_at=time.time(),
        record_dir=folders.record_dir,
        log_dir=folders.log_dir,
        directories=(folder,),
    )
