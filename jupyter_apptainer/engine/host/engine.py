"""The engine itself: version, kind of install, settings of its administrator, variables that change what it does."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from ..environment import is_bending
from ..locate import EngineInfo
from .probe import Probe

# Below 1.4.5 an interrupt from the terminal kills squashfuse (apptainer/apptainer#3197); below 1.2 instances lack what we use.
MINIMUM = {"apptainer": (1, 2, 0), "singularity-ce": (4, 0, 0), "singularity": (4, 0, 0)}
RECOMMENDED = {"apptainer": (1, 4, 5)}
_INSTALL = "jupyter apptainer engine install"

# Setting of apptainer.conf, the value that hinders, how badly, and what it means.
_HINDRANCES = (
    ("user bind control", "no", "fail", "nothing can be bound into a container, so a kernel cannot be reached"),
    ("allow container sif", "no", "warn", "SIF images are not allowed"),
    ("allow container dir", "no", "warn", "unpacked images are not allowed"),
    ("allow container extfs", "no", "warn", "ext3 images and overlays are not allowed"),
    ("enable overlay", "no", "warn", "overlays are switched off"),
    ("mount home", "no", "warn", "the home folder is not in the container unless it is bound"),
    ("mount proc", "no", "fail", "/proc is not in the container"),
    ("mount dev", "no", "warn", "/dev is not in the container"),
    ("always use nv", "yes", "warn", "every container gets the NVIDIA libraries, also with `nv: false`"),
    ("always use rocm", "yes", "warn", "every container gets the ROCm libraries"),
)
_LIMITS = ("limit container owners", "limit container groups", "limit container paths")


def probe_engine(engine: EngineInfo | None) -> Probe:
    """Check that there is an engine, and that it is new enough."""
    if engine is None:
        return Probe("engine", "fail", "no apptainer or singularity on PATH or in our own folder", _INSTALL)
    setuid = "with setuid" if engine.setuid else "without setuid"
    what = f"{engine.flavour} {engine.version_text} at {engine.path} ({engine.origin}, {setuid})"
    minimum, recommended = MINIMUM[engine.flavour], RECOMMENDED.get(engine.flavour)
    if engine.version < minimum:
        return Probe("engine", "fail", f"{what} is older than {_dotted(minimum)}", _INSTALL)
    if recommended and engine.version < recommended:
        detail = f"{what}: from {_dotted(recommended)} on, an interrupt no longer kills the image's mount"
        return Probe("engine", "warn", detail, _INSTALL)
    return Probe("engine", "ok", what)


def probe_settings(engine: EngineInfo) -> Probe:
    """Check what the administrator has set in apptainer.conf."""
    name = "engine settings"
    path = Path(engine.config_file)
    try:
        settings = parse_settings(path.read_text(errors="replace"))
    except OSError as error:
        return Probe(
            name, "warn", f"{path} cannot be read: {error.strerror}", f"sudo chmod a+r {shlex.quote(str(path))}"
        )
    found = [(key, level, text) for key, value, level, text in _HINDRANCES if settings.get(key) == value]
    found += [(key, "warn", f"only some images are allowed ({settings[key]})") for key in _LIMITS if settings.get(key)]
    if not found:
        # Without setuid the engine cannot set a limit, whatever the file says.
        size = f"; writable tmpfs of {settings.get('sessiondir max size', '64')} MiB" if engine.setuid else ""
        return Probe(name, "ok", f"nothing in {path} is in the way{size}")
    detail = "; ".join(f"`{key} = {settings[key]}`: {text}" for key, _, text in found)
    level = "fail" if any(level == "fail" for _, level, _ in found) else "warn"
    keys = ", ".join(key for key, _, _ in found)
    return Probe(name, "fail" if level == "fail" else "warn", detail, f"sudoedit {shlex.quote(str(path))}  # {keys}")


def parse_settings(text: str) -> dict[str, str]:
    """Parse apptainer.conf: `key = value` lines; of a key that is given several times the last counts."""
    lines = (line.partition("=") for line in text.splitlines() if "=" in line and not line.lstrip().startswith("#"))
    return {key.strip(): value.strip() for key, _, value in lines}


def probe_variables(environ: Mapping[str, str]) -> Probe:
    """Look for variables that change engine commands. Ours are run without them, those typed by hand are not."""
    names = sorted(name for name in environ if is_bending(name))
    if not names:
        return Probe("variables", "ok", "no APPTAINER_ or SINGULARITY_ variable changes what the engine does")
    detail = (
        f"{', '.join(names)}: container kernels ignore them, commands typed by hand do not; "
        "what a kernel needs of them belongs into its kernel.json"
    )
    return Probe("variables", "warn", detail, f"unset {' '.join(names)}")


def _dotted(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))
