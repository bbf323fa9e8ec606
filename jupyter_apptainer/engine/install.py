"""Get an engine where there is none: the distribution's package, its packages unpacked, or conda's.

The last two go to a folder of the user's own, `Places.engine_prefix`: a link to one of the folders in `engines` beside
it. A new engine is made complete and tried before the link moves, so an interrupted install leaves the old one working;
what it left behind goes at the next install. The engine that was replaced stays until then too, for what still runs.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ..errors import ApptainerError, CommandTimeout, EngineInstallError
from ..places import Places, make_private_dir
from .distribution import install_distribution_package
from .locate import EngineInfo, find_engine, get_engine, load_engine_info
from .lock import hold_lock
from .step import OnProgress, StepError, build_step_environment, find_program, run_step
from .unpack import unpack_engine

Method = Literal["distribution", "unpacked", "conda"]
METHODS: tuple[Method, ...] = get_args(Method)

_CONDA_PROGRAMS = ("micromamba", "mamba", "conda")


@dataclass(frozen=True)
class Refusal:
    """Why a method gave no engine."""

    method: Method
    reason: str
    log_tail: tuple[str, ...] = ()


def install_engine(
    places: Places,
    *,
    on_progress: OnProgress = lambda _: None,
    method: Method | None = None,
    is_forced: bool = False,
    environ: Mapping[str, str] | None = None,
) -> EngineInfo:
    """Return a usable engine, getting one if necessary.

    method: only this one, even if there is an engine already. is_forced: get a new one in any case.
    Raises EngineInstallError with the reason of each method if none works here.
    """
    env = os.environ if environ is None else environ
    make_private_dir(places.data)
    lock = places.data / "engines" / ".lock"
    with hold_lock(lock, on_wait=lambda: on_progress("Waiting for another install of the engine to end")):
        present = find_engine(environ=env, places=places)
        if present and not present.is_too_old and not method and not is_forced:
            return present
        refusals: list[Refusal] = []
        for each in (method,) if method else METHODS:
            try:
                return _install(each, places, env, on_progress)
            except StepError as failure:
                refusals.append(Refusal(each, failure.reason, failure.log_tail))
            except CommandTimeout as timeout:
                refusals.append(Refusal(each, timeout.message, timeout.log_tail))
            on_progress(f"Not taken: {each}: {refusals[-1].reason}")
        raise _build_error(refusals, present)


def _install(method: Method, places: Places, env: Mapping[str, str], on_progress: OnProgress) -> EngineInfo:
    match method:
        case "distribution":
            with tempfile.TemporaryDirectory(prefix="scratch-", dir=places.data / "engines") as scratch:
                install_distribution_package(Path(scratch), on_progress)
            return get_engine(environ=env, places=places)
        case "unpacked":
            return install_into_prefix(
                places, method, lambda prefix, scratch: unpack_engine(prefix, scratch, on_progress), env
            )
        case "conda":
            return install_into_prefix(
                places, method, lambda prefix, _: create_conda_prefix(prefix, env, on_progress), env
            )


def install_into_prefix(
    places: Places, name: str, make: Callable[[Path, Path], object], environ: Mapping[str, str]
) -> EngineInfo:
    """Let `make(prefix, scratch)` make an engine in a new folder, try it, and only then point `engine_prefix` to it."""
    engines = make_private_dir(places.data / "engines")
    _remove_leftovers(engines, places.engine_prefix.resolve())
    prefix = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=engines))
    scratch = Path(tempfile.mkdtemp(prefix="scratch-", dir=engines))
    try:
        prefix.chmod(0o755)
        make(prefix, scratch)
        _try_engine(prefix / "bin" / "apptainer", places, environ)
        _point(places.engine_prefix, prefix)
    except BaseException:
        shutil.rmtree(prefix, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return load_engine_info(str(places.engine_prefix / "bin" / "apptainer"), "own prefix", places, environ)


def create_conda_prefix(prefix: Path, environ: Mapping[str, str], on_progress: OnProgress) -> None:
    """Create a conda environment with the engine. Raises StepError where there is no conda."""
    program = find_conda(environ)
    if program is None:
        raise StepError(f"none of {', '.join(_CONDA_PROGRAMS)} is installed")
    on_progress(f"Installing the engine from conda-forge with {Path(program).name}")
    # conda asks about folders that exist already.
    prefix.rmdir()
    argv = (
        program,
        "create",
        "--yes",
        "--prefix",
        str(prefix),
        "--override-channels",
        "--channel",
        "conda-forge",
        "apptainer",
    )
    run_step(argv, "create a conda environment", env=build_step_environment(environ), timeout_s=1800)


def find_conda(environ: Mapping[str, str]) -> str | None:
    """Return micromamba, mamba or conda: from their own variables (they are often shell functions), or from PATH."""
    named = (environ.get(variable, "") for variable in ("MAMBA_EXE", "CONDA_EXE"))
    return next((path for path in named if os.access(path, os.X_OK)), None) or next(
        filter(None, (find_program(name, environ) for name in _CONDA_PROGRAMS)), None
    )


def _try_engine(program: Path, places: Places, environ: Mapping[str, str]) -> None:
    try:
        load_engine_info(str(program), "own prefix", places, environ)
    except OSError as error:
        raise StepError(
            f"the new engine cannot be started: {program}: {error.strerror} (is that file system mounted noexec?)"
        ) from error
    except ApptainerError as error:
        raise StepError(f"the new engine does not work: {error.message}", error.log_tail) from error


def _point(link: Path, target: Path) -> None:
    if link.is_dir() and not link.is_symlink():
        link.rename(target.with_name(f"replaced-{target.name}"))
    fresh = target.with_name(f".link-{target.name}")
    fresh.symlink_to(Path(target.parent.name) / target.name)
    fresh.rename(link)


def _remove_leftovers(engines: Path, current: Path) -> None:
    for path in engines.iterdir():
        if path == current or path.name == ".lock":
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _build_error(refusals: list[Refusal], present: EngineInfo | None) -> EngineInstallError:
    reasons = "".join(f"\n  {refusal.method}: {refusal.reason}" for refusal in refusals)
    kept = f"; {present.path} stays as it is" if present else ""
    return EngineInstallError(
        f"no engine could be installed{kept}:{reasons}",
        hint="ask the administrator to install apptainer, or install micromamba and try again",
        log_tail=next((refusal.log_tail for refusal in refusals if refusal.log_tail), ()),
    )
