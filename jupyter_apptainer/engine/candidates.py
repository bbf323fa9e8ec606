"""Which engine is used, and why: every place that is searched, with what is there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..errors import ApptainerError
from ..places import Places, find_places
from .locate import EngineInfo, Origin, find_engine, load_engine_info


@dataclass(frozen=True)
class EngineCandidate:
    """One place where an engine may be. path and version are empty where there is none; reason says why (not) chosen."""

    origin: Origin
    path: str
    version: str
    is_chosen: bool
    reason: str


def list_candidates(
    configured: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    places: Places | None = None,
) -> tuple[EngineCandidate, ...]:
    """Return all places in the order in which they are searched. Agrees with `find_engine`, whose arguments it takes."""
    env = os.environ if environ is None else environ
    where = places or find_places(env)
    try:
        chosen = find_engine(configured, environ=env, places=where)
    except (ApptainerError, OSError):
        # The row of the program that does not start says so.
        chosen = None
    return tuple(
        _examine(origin, name, path, chosen, where, env) for origin, name, path in _iter_places(configured, where, env)
    )


def _iter_places(
    configured: str | None, places: Places, environ: Mapping[str, str]
) -> Iterator[tuple[Origin, str, str | None]]:
    if configured:
        yield "configured", configured, shutil.which(os.path.expanduser(configured), path=environ.get("PATH"))
    for name in ("apptainer", "singularity"):
        yield "PATH", name, shutil.which(name, path=environ.get("PATH"))
    own = str(places.engine_prefix / "bin" / "apptainer")
    yield "own prefix", own, own if os.access(own, os.X_OK) else None


def _examine(
    origin: Origin, name: str, path: str | None, chosen: EngineInfo | None, places: Places, environ: Mapping[str, str]
) -> EngineCandidate:
    if path is None:
        where = "no program of this name on PATH" if origin == "PATH" else "no program there"
        return EngineCandidate(origin, "", "", False, f"{name}: {where}")
    try:
        info = load_engine_info(path, origin, places, environ)
    except (ApptainerError, OSError) as error:
        return EngineCandidate(origin, path, "", False, f"does not work: {error}")
    version = f"{info.flavour} {info.version_text}"
    if chosen is not None and (info.path, info.origin) == (chosen.path, chosen.origin):
        return EngineCandidate(origin, path, version, True, _say_why_chosen(info))
    if info.is_too_old:
        return EngineCandidate(origin, path, version, False, "too old")
    return EngineCandidate(origin, path, version, False, f"{chosen.origin} comes first" if chosen else "not chosen")


def _say_why_chosen(info: EngineInfo) -> str:
    match info.origin:
        case "configured":
            reason = "named in the configuration"
        case "PATH":
            reason = "the first on PATH"
        case "own prefix":
            reason = "got by `jupyter apptainer engine install`, and none on PATH is new enough"
    return f"{reason}, but too old" if info.is_too_old else reason
