"""Wheels for another Python than the one that runs this: found by pip on the host, with the host's own settings.

pip chooses the files for a foreign Python, but looks up the conditions of requirements (`; python_version < "3.12"`) in its
own. So what those conditions ask for is computed here, and pip is asked again until nothing is missing.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from ..engine.step import StepError, build_step_environment, find_program, run_step

# A kernel may be waiting for it.
PIP_TIMEOUT_S = 300.0
_MAX_ROUNDS = 5
# The oldest C library that wheels of today are built for.
_FIRST_GLIBC_MINOR = 17
_TARGET = re.compile(r"\d+\.\d+\.\d+ cp\d+t? (glibc2\.\d+|musl) \w+", re.ASCII)
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Target:
    """The Python that the wheels are for. abi: as in "cp311" or "cp313t"; libc: as in "glibc2.36" or "musl".

    An image may say anything of itself, and these words go into paths and command lines. Raises ValueError for odd ones.
    """

    python_version: str
    abi: str
    libc: str
    machine: str

    def __post_init__(self) -> None:
        words = f"{self.python_version} {self.abi} {self.libc} {self.machine}"
        if not _TARGET.fullmatch(words):
            raise ValueError(f"not a Python that wheels could be for: {words}")

    @property
    def name(self) -> str:
        """One word for all that compiled packages depend on."""
        return f"{self.abi}-{self.libc}-{self.machine}"

    @property
    def minor(self) -> str:
        """As in "3.11"."""
        return ".".join(self.python_version.split(".")[:2])

    def build_markers(self) -> dict[str, str]:
        """Return what differs from this Python in the environment of conditions (PEP 508)."""
        return {
            "python_version": self.minor,
            "python_full_version": self.python_version,
            "implementation_name": "cpython",
            "implementation_version": self.python_version,
            "platform_python_implementation": "CPython",
            "platform_machine": self.machine,
            "extra": "",
        }


@dataclass(frozen=True)
class Wheel:
    """A wheel on disk. requires: its requirements that hold for the target, without their conditions."""

    path: Path
    name: str
    version: str
    requires: tuple[str, ...]


def list_platforms(target: Target) -> tuple[str, ...]:
    """Return the platform tags that `target` can load, the newest first (PEP 600, PEP 656)."""
    machine = target.machine
    if not target.libc.startswith("glibc"):
        # Every Alpine with Python 3.9 or newer has musl 1.2.
        return (f"musllinux_1_2_{machine}", f"musllinux_1_1_{machine}")
    minor = int(target.libc.rpartition(".")[2])
    newer = [f"manylinux_2_{number}_{machine}" for number in range(minor, _FIRST_GLIBC_MINOR - 1, -1)]
    return (*newer, f"manylinux2014_{machine}")


def find_pip(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the command of a pip on this host: that of this Python, one on PATH, or uv's. Raises StepError."""
    if importlib.util.find_spec("pip"):
        return (sys.executable, "-m", "pip")
    for name in ("pip3", "pip"):
        if program := find_program(name, environ):
            return (program,)
    if program := find_program("uv", environ):
        return (program, "tool", "run", "pip")
    raise StepError(f"there is no pip: `{sys.executable} -m ensurepip` or `uv pip install pip` adds one")


def download_wheels(
    roots: Sequence[str],
    target: Target,
    scratch: Path,
    *,
    environ: Mapping[str, str],
    installed: Mapping[str, str] | None = None,
    on_round: Callable[[int], None] = lambda _: None,
) -> tuple[Wheel, ...]:
    """Fetch wheels of `roots` and of all that they need, for `target`, into the empty folder `scratch`.

    installed: what is there already, name -> version. It is kept as it is, and what fits it is chosen.
    Raises StepError with pip's reason.
    """
    kept = _normalize(installed or {})
    options = _write_kept(kept, scratch) if kept else []
    wanted = list(roots)
    for number in range(_MAX_ROUNDS):
        on_round(number)
        folder = scratch / f"round-{number}"
        _download(wanted, target, folder, options, environ)
        wheels = [read_wheel(path, target) for path in sorted(folder.glob("*.whl"))]
        own = tuple(wheel for wheel in wheels if wheel.name not in kept)
        missing = _find_missing(own, kept)
        if not missing:
            return own
        wanted += missing
    raise StepError(f"the requirements of {', '.join(roots)} find no end: {', '.join(missing)}")


def read_wheel(path: Path, target: Target) -> Wheel:
    """Read a wheel's own description."""
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        metadata = HeaderParser().parsestr(archive.read(name).decode("utf-8"))
    requires = parse_requirements(metadata.get_all("Requires-Dist", []), target)
    return Wheel(path, canonicalize_name(metadata["Name"]), metadata["Version"], requires)


def parse_requirements(lines: Sequence[str], target: Target) -> tuple[str, ...]:
    """Return those requirements whose conditions hold for `target`, without the conditions."""
    markers = target.build_markers()
    found = []
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate(dict(markers)):
            requirement.marker = None
            found.append(str(requirement))
    return tuple(found)


def unpack_wheel(wheel: Wheel, folder: Path) -> None:
    """Unpack a wheel's packages into `folder`; its programs and data are left out."""
    with zipfile.ZipFile(wheel.path) as archive:
        for member in archive.infolist():
            data = re.match(r"[^/]+\.data/(?P<kind>[^/]+)/", member.filename)
            if data and data["kind"] not in ("purelib", "platlib"):
                continue
            if data:
                member.filename = member.filename[data.end() :]
            archive.extract(member, folder)


def find_conflicts(requires: Mapping[str, Sequence[str]], installed: Mapping[str, str]) -> tuple[str, ...]:
    """Return what of `requires` (package -> its requirements) the versions in `installed` do not fulfil.

    A package that is itself installed is used as it is, with its own requirements.
    """
    present = _normalize(installed)
    found = []
    for name, lines in requires.items():
        for requirement in map(Requirement, lines) if name not in present else ():
            version = present.get(canonicalize_name(requirement.name))
            if version is not None and not requirement.specifier.contains(version, prereleases=True):
                found.append(f"{name} needs {requirement}, and {requirement.name} is {version}")
    return tuple(found)


def _find_missing(wheels: Sequence[Wheel], kept: Mapping[str, str]) -> list[str]:
    known = {wheel.name for wheel in wheels} | set(kept)
    lines = (line for wheel in wheels for line in wheel.requires)
    return sorted({line for line in lines if canonicalize_name(Requirement(line).name) not in known})


def _download(
    wanted: Sequence[str], target: Target, folder: Path, options: Sequence[str], environ: Mapping[str, str]
) -> None:
    argv = [*find_pip(environ), "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    argv += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", target.python_version]
    if target.abi.endswith("t"):
        # Unasked, pip takes the ABI with the interpreter lock.
        argv += ["--abi", target.abi, "--abi", "none"]
    for platform in list_platforms(target):
        argv += ["--platform", platform]
    argv += ["--dest", str(folder), *options, *wanted]
    title = f"fetch {wanted[0]} for Python {target.minor}"
    try:
        run_step(argv, title, env=build_step_environment(environ), timeout_s=PIP_TIMEOUT_S)
    except StepError as error:
        # Its last lines only point to its documentation.
        reason = next((line for line in error.log_tail if line.startswith("ERROR: ")), None)
        if reason is None:
            raise
        raise StepError(reason.removeprefix("ERROR: "), error.log_tail) from error


def _write_kept(kept: Mapping[str, str], scratch: Path) -> list[str]:
    """Make what is installed visible to pip: as empty wheels of the same versions, and as the only versions allowed."""
    folder = scratch / "installed"
    folder.mkdir()
    for name, version in kept.items():
        stem = f"{name.replace('-', '_')}-{version}"
        with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as archive:
            metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            archive.writestr(f"{stem}.dist-info/METADATA", metadata)
            archive.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            archive.writestr(f"{stem}.dist-info/RECORD", "")
    constraints = scratch / "constraints.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in kept.items()), encoding="utf-8")
    return ["--find-links", str(folder), "--constraint", str(constraints)]


def _normalize(installed: Mapping[str, str]) -> dict[str, str]:
    """Leave out what does not follow PEP 503 or PEP 440: nothing could be said about it, and it may be meant to be odd."""
    found = {}
    for name, text in installed.items():
        canonical = canonicalize_name(name)
        try:
            if _NAME.fullmatch(canonical):
                found[str(canonical)] = str(Version(text))
        except InvalidVersion:
            continue
    return found
