"""Find the engine: a configured path, PATH, our own prefix; its flavour and version; which flags this process needs.

What costs a process (`--version`, `buildcfg`) is asked once for each binary and kept on disk by the identity of the file.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import EngineNotFound, EngineOutputError
from ..places import Places, find_places, make_private_dir, write_private_file
from .command import Command, Completed
from .environment import build_engine_environment
from .runner import Runner

Flavour = Literal["apptainer", "singularity-ce", "singularity"]
Origin = Literal["configured", "PATH", "own prefix"]

_VERSION = re.compile(r"^(apptainer|singularity-ce|singularity) version v?(\d+)\.(\d+)(?:\.(\d+))?")


# Below these, instances or options that we rely on are missing.
MINIMUM_VERSIONS: Mapping[Flavour, tuple[int, int, int]] = {
    "apptainer": (1, 2, 0),
    "singularity-ce": (4, 0, 0),
    "singularity": (4, 0, 0),
}


@dataclass(frozen=True)
class EngineInfo:
    """The engine that was found.

    path: absolute path of the program. version: (major, minor, patch). origin: where it was found.
    setuid: installed with its setuid-root starter. config_file: its apptainer.conf. libexec: folder of its helpers.
    """

    path: str
    flavour: Flavour
    version: tuple[int, int, int]
    version_text: str
    origin: Origin
    setuid: bool
    config_file: str
    libexec: str

    @property
    def is_too_old(self) -> bool:
        """Older than what we need; `find_engine` takes such a one only where there is no other."""
        return self.version < MINIMUM_VERSIONS[self.flavour]

    @property
    def has_no_eval(self) -> bool:
        """`--no-eval` keeps values of variables from being run as shell text (Apptainer 1.1, SingularityCE 3.10)."""
        return self.version >= ((1, 1, 0) if self.flavour == "apptainer" else (3, 10, 0))

    @property
    def dot_folder(self) -> str:
        """Name of the engine's folder in the home directory."""
        return ".apptainer" if self.flavour == "apptainer" else ".singularity"


@dataclass(frozen=True)
class Capabilities:
    """Bit masks of this process, from /proc/self/status, and those that the running kernel knows."""

    permitted: int
    known: int

    @property
    def missing(self) -> int:
        """Capabilities that root would have and this process lacks."""
        return self.known & ~self.permitted


def load_capabilities() -> Capabilities:
    """Read what this process may do. The engine asks for the full set as root and fails without it."""
    status = Path("/proc/self/status").read_text()
    match = re.search(r"^CapPrm:\s*([0-9a-f]+)", status, re.MULTILINE)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    return Capabilities(permitted=int(match.group(1), 16) if match else 0, known=(1 << (last + 1)) - 1)


def run_flags(engine: EngineInfo) -> tuple[str, ...]:
    """Flags that every `exec`, `run` and `instance start` of this process needs to work at all."""
    if os.geteuid() == 0 and (load_capabilities().missing or is_in_user_namespace()):
        return ("--userns",)
    return ()


def is_in_user_namespace() -> bool:
    """Say whether this process is in a user namespace below the host's own: in a rootless container, say.

    Root there passes for root with the engine, whose `exec instance://` then fails to join a namespace that was never made.
    """
    try:
        mapping = Path("/proc/self/uid_map").read_text().split()
    except OSError:
        return False
    return mapping != ["0", "0", "4294967295"]


def build_flags(engine: EngineInfo) -> tuple[str, ...]:
    """Flags that `build` needs: an ordinary user, or root without all capabilities, builds in a user namespace."""
    if os.geteuid() == 0 and (not load_capabilities().missing or build_wrapper()):
        return ()
    if engine.flavour == "apptainer" and not (shutil.which("newuidmap") and shutil.which("newgidmap")):
        # A range of ids without the programs that map it is an error to the engine; without the range, one id suffices.
        return ("--fakeroot", "--ignore-subuid")
    return ("--fakeroot",)


def build_wrapper() -> tuple[str, ...]:
    """What must stand before a `build` command: nothing, but for root without all capabilities and without a range of ids.

    The engine refuses --fakeroot to such a root, though not to others; in a namespace of its own it has all capabilities.
    """
    if os.geteuid() == 0 and load_capabilities().missing and not has_subordinate_ids("root", 0):
        return ("unshare", "--map-root-user")
    return ()


def has_subordinate_ids(name: str, uid: int) -> bool:
    """Say whether a user has ranges in both subuid(5) and subgid(5)."""
    return all(_is_listed(Path(path), name, uid) for path in ("/etc/subuid", "/etc/subgid"))


def _is_listed(path: Path, name: str, uid: int) -> bool:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return False
    return any(line.split(":")[0] in (name, str(uid)) for line in lines if line.count(":") == 2)


def find_engine(
    configured: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    places: Places | None = None,
) -> EngineInfo | None:
    """Return the engine to use, or None where there is none.

    Order: `configured`; PATH (apptainer before singularity); the one that `jupyter apptainer engine install` put into our
    prefix. One on PATH that is too old comes last.
    Raises EngineNotFound where `configured` is given and no program is there: a wrong setting must not go unnoticed.
    """
    env = os.environ if environ is None else environ
    where = places or find_places(env)
    if configured:
        path = shutil.which(os.path.expanduser(configured), path=env.get("PATH"))
        if not path:
            raise EngineNotFound(
                f"the configured engine {configured!r} is not a program",
                hint="correct `ApptainerConfig.engine_path`, or leave it empty to search PATH",
            )
        return load_engine_info(path, "configured", where, env)
    found: list[EngineInfo] = []
    for name in ("apptainer", "singularity"):
        path = shutil.which(name, path=env.get("PATH"))
        if path:
            found.append(load_engine_info(path, "PATH", where, env))
            if not found[-1].is_too_old:
                return found[-1]
    own = where.engine_prefix / "bin" / "apptainer"
    if os.access(own, os.X_OK):
        found.insert(0, load_engine_info(str(own), "own prefix", where, env))
    return found[0] if found else None


def get_engine(
    configured: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    places: Places | None = None,
) -> EngineInfo:
    """Like `find_engine`, but raises EngineNotFound where there is none."""
    found = find_engine(configured, environ=environ, places=places)
    if found is None:
        raise EngineNotFound("no apptainer or singularity found on PATH or in our own folder")
    return found


def load_engine_info(path: str, origin: Origin, places: Places, environ: Mapping[str, str]) -> EngineInfo:
    """Ask the program at `path` who it is, or take the answer that was kept for exactly this file."""
    real = os.path.realpath(path)
    status = os.stat(real)
    key = f"{real}:{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
    cache = places.probes / "engines.json"
    known = _load_cache(cache)
    info = _recall(known.get(key), path, origin)
    if info is None:
        info = _ask(path, origin, environ)
        known = {k: v for k, v in known.items() if not k.startswith(real + ":")} | {key: asdict(info)}
        _save_cache(cache, known)
    return info


def _recall(record: Any, path: str, origin: Origin) -> EngineInfo | None:
    """Make the answer from what was kept; None where another version of ours kept something else."""
    try:
        major, minor, patch = record["version"]
        return EngineInfo(
            path=path,
            flavour=record["flavour"],
            version=(int(major), int(minor), int(patch)),
            version_text=record["version_text"],
            origin=origin,
            setuid=record["setuid"],
            config_file=record["config_file"],
            libexec=record["libexec"],
        )
    except (KeyError, TypeError, ValueError):
        return None


def parse_version(completed: Completed) -> tuple[Flavour, tuple[int, int, int], str]:
    """Parse `--version`: `apptainer version 1.4.5`, `singularity-ce version 4.3.0-1`, `singularity version 3.8.7`."""
    text = completed.stdout.strip()
    match = _VERSION.match(text)
    if not match:
        raise EngineOutputError(f"unexpected answer of {completed.argv[0]} --version: {text!r}")
    flavour, major, minor, patch = match.groups()
    return flavour, (int(major), int(minor), int(patch or 0)), text.split()[-1]  # type: ignore[return-value]  # the pattern admits just the three flavours


def parse_buildcfg(completed: Completed) -> dict[str, str]:
    """Parse `buildcfg`: one KEY=VALUE a line."""
    pairs = (line.partition("=") for line in completed.stdout.splitlines() if "=" in line)
    return {key: value for key, _, value in pairs}


def _ask(path: str, origin: Origin, environ: Mapping[str, str]) -> EngineInfo:
    env = build_engine_environment(environ)
    runner = Runner()
    flavour, version, text = runner.run(
        Command((path, "--version"), env, parse_version, f"ask {path} for its version", path, timeout_s=20)
    )
    config = runner.run(
        Command((path, "buildcfg"), env, parse_buildcfg, f"ask {path} for its settings", path, timeout_s=20)
    )
    prefix = "APPTAINER" if flavour == "apptainer" else "SINGULARITY"
    return EngineInfo(
        path=path,
        flavour=flavour,
        version=version,
        version_text=text,
        origin=origin,
        setuid=config.get(f"{prefix}_SUID_INSTALL") == "1",
        config_file=config.get(f"{prefix}_CONF_FILE", ""),
        libexec=config.get("LIBEXECDIR", ""),
    )


def _load_cache(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _save_cache(path: Path, content: object) -> None:
    try:
        make_private_dir(path.parent)
        write_private_file(path, json.dumps(content))
    except OSError:
        # A cache that cannot be written only costs time.
        return
