"""`jupyter apptainer doctor`: all checks of this machine in one report, and at the end a container that really runs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from ..config import ApptainerConfig
from ..engine import host
from ..engine.host import Probe, Status
from ..engine.locate import EngineInfo, find_engine
from ..errors import ApptainerError
from ..places import Places
from . import leftovers, smoke, unpacked

Check = Callable[[], Probe | list[Probe]]


@dataclass(frozen=True)
class DoctorReport:
    """What was found, in the order in which to mend it."""

    probes: tuple[Probe, ...]
    duration_s: float

    @property
    def status(self) -> Status:
        """The worst of all."""
        found = {probe.status for probe in self.probes}
        return "fail" if "fail" in found else "warn" if "warn" in found else "ok"

    def to_json(self) -> dict[str, object]:
        """The same for programs."""
        return {
            "status": self.status,
            "duration_s": round(self.duration_s, 3),
            "probes": [probe.to_json() for probe in self.probes],
        }


def run_doctor(
    engine_setting: str | None,
    places: Places,
    image: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    settings: ApptainerConfig | None = None,
) -> DoctorReport:
    """Check everything; takes about as long as PID 1 needs to take an orphan away, two seconds or so.

    engine_setting: the configured engine, if any. image: what to try at the end; otherwise an image of our kernels. settings: by default,
    nothing is configured.
    """
    env = os.environ if environ is None else environ
    started = time.monotonic()
    engine, first = _find_engine(engine_setting, places, env)
    with ThreadPoolExecutor(1) as pool:
        # It only waits, so the others run meanwhile.
        reaping = pool.submit(_run_check, "PID 1", partial(host.probe_reaping, places))
        probes = [first]
        for name, check in _list_checks(engine, places, env, image, settings or ApptainerConfig()):
            probes += _run_check(name, check)
        probes += reaping.result()
        if engine is None:
            probes.append(Probe(smoke.NAME, "fail", "there is no engine to try"))
        else:
            # A loop of its own, in a thread of its own: the caller may have one running.
            trial = pool.submit(asyncio.run, smoke.try_image(engine, places, env, image))
            probes.append(trial.result())
    return DoctorReport(tuple(probes), time.monotonic() - started)


def _find_engine(setting: str | None, places: Places, environ: Mapping[str, str]) -> tuple[EngineInfo | None, Probe]:
    try:
        engine = find_engine(setting, environ=environ, places=places)
    except ApptainerError as error:
        return None, Probe("engine", "fail", error.message, error.hint)
    return engine, host.probe_engine(engine)


def _list_checks(
    engine: EngineInfo | None,
    places: Places,
    environ: Mapping[str, str],
    image: str | None,
    settings: ApptainerConfig,
) -> list[tuple[str, Check]]:
    checks: list[tuple[str, Check]] = [
        ("user namespaces", partial(host.probe_user_namespaces, engine)),
        ("AppArmor", partial(host.probe_apparmor, engine)),
        ("confinement", partial(host.probe_confinement, engine, environ)),
        ("capabilities", host.probe_capabilities),
        ("Linux", host.probe_kernel_version),
        ("FUSE", partial(host.probe_fuse_device, engine)),
        ("programs", partial(host.probe_helpers, engine, environ)),
        ("fakeroot", host.probe_fakeroot),
        ("NVIDIA", partial(host.probe_nvidia, engine, environ)),
        ("cgroups", partial(host.probe_cgroups, environ)),
        ("/proc", partial(host.probe_hidepid, engine)),
        ("disks", lambda: host.probe_disks(host.build_roles(engine, places, environ, image))),
        ("variables", partial(host.probe_variables, environ)),
        ("leftovers: our instances", partial(leftovers.probe_own_instances, places)),
        ("leftovers: FUSE programs", leftovers.probe_orphans),
    ]
    if engine is None:
        return checks
    return [
        ("engine settings", partial(host.probe_settings, engine)),
        *checks,
        (unpacked.NAME, partial(unpacked.probe_unpacked, engine, settings, places)),
        ("leftovers: records", partial(leftovers.probe_records, engine, environ, places.hostname)),
        ("leftovers: temporary folders", partial(leftovers.probe_temporary_folders, engine, environ)),
    ]


def _run_check(name: str, check: Check) -> list[Probe]:
    """Run one check. What it cannot look at is a finding too, and must not hide the others."""
    try:
        found = check()
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return [Probe(name, "warn", f"could not be checked: {error}")]
    return found if isinstance(found, list) else [found]
