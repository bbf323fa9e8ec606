"""The image's local counterpart: a virtual environment with the same Python and the same versions of what a kernel imports.

Made once for each set of versions and kept in the cache, because a comparison of different versions would say little.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_apptainer.engine.command import Command, Completed
from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.options import build_exec
from jupyter_apptainer.engine.runner import Runner
from jupyter_apptainer.images.probe import PROBE_OPTIONS

_WANTED = ("ipykernel", "jupyter_client", "pyzmq", "tornado", "ipython", "debugpy", "psutil")
_LIST_PACKAGES = """
import importlib.metadata, json, platform
packages = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
print("PACKAGES:" + json.dumps([platform.python_version(), packages]))
"""
# A Python outside of any environment: the one that the image's environment was made with, where that has no ipykernel.
_FIND_BARE = """
import subprocess, sys
base = sys._base_executable
lacks = base != sys.executable and subprocess.run([base, "-c", "import ipykernel"], capture_output=True).returncode
print("BARE:" + (base if lacks else ""))
"""


@dataclass(frozen=True)
class Versions:
    """Which Python, and which packages by their names on PyPI, in lower case with dashes."""

    python: str
    packages: Mapping[str, str]

    @property
    def minor(self) -> str:
        """As in "3.11"."""
        return ".".join(self.python.split(".")[:2])

    def name_differences(self, other: Versions) -> list[str]:
        """Say in which of the packages that matter, and in which Python, the two differ."""
        pairs = [("Python", self.python, other.python)]
        names = (_normalize(name) for name in _WANTED)
        pairs += [(name, self.packages.get(name, "none"), other.packages.get(name, "none")) for name in names]
        return [f"{name} {ours} and {theirs}" for name, ours, theirs in pairs if ours != theirs]


@dataclass(frozen=True)
class Twin:
    """A local Python with ipykernel, and its versions as they really are."""

    python: Path
    versions: Versions


def read_image_versions(engine: EngineInfo, image: str, command: str) -> Versions:
    """Ask the image's Python (`command`) for its packages."""
    env = build_engine_environment(os.environ, {"PYTHONNOUSERSITE": "1"})
    asked = build_exec(engine, image, (command, "-c", _LIST_PACKAGES), env, options=PROBE_OPTIONS, cwd="/")
    return Runner().run(_parsing(asked))


def find_bare_python(engine: EngineInfo, image: str, command: str) -> str | None:
    """Return a Python of the image that has no ipykernel, beside the one that has (`command`); None where there is none."""
    env = build_engine_environment(os.environ, {"PYTHONNOUSERSITE": "1"})
    asked = build_exec(engine, image, (command, "-c", _FIND_BARE), env, options=PROBE_OPTIONS, cwd="/")
    return Runner().run(asked).stdout.rpartition("BARE:")[2].strip() or None


def make_twin(wanted: Versions, cache: Path, more: Sequence[str] = ()) -> Twin:
    """Return the local counterpart of an image with these versions; the first time it is installed, which takes a minute.

    more: packages that are installed too, in the image's versions.
    """
    interpreter = _find_interpreter(wanted.minor)
    pins = sorted(f"{name}=={version}" for name, version in wanted.packages.items())
    key = hashlib.sha256("\n".join([interpreter, wanted.minor, *pins, *more]).encode()).hexdigest()[:16]
    folder = cache / "benchmarks" / key
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _install(interpreter, folder, pins, wanted, (*_WANTED, *more))
        (folder / "complete").touch()
    answer = subprocess.run([python, "-c", _LIST_PACKAGES], check=True, capture_output=True, text=True)
    return Twin(python, _parse_versions(answer.stdout))


def _install(interpreter: str, folder: Path, pins: Sequence[str], wanted: Versions, installed: Sequence[str]) -> None:
    subprocess.run([interpreter, "-m", "venv", folder], check=True, stdin=subprocess.DEVNULL)
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(pins) + "\n")
    names = [name for name in map(_normalize, installed) if name in wanted.packages]
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "--constraint", str(constraints), *names], check=True, stdin=subprocess.DEVNULL)


def _find_interpreter(minor: str) -> str:
    """Return a Python of the image's minor version, the distribution's own first; else the one that runs this."""
    own = getattr(sys, "_base_executable", None) or sys.executable
    candidates = [f"/usr/bin/python{minor}", shutil.which(f"python{minor}")]
    for path in candidates:
        if path and os.access(path, os.X_OK) and _can_make_venv(path):
            return path
    return str(own)


def _can_make_venv(python: str) -> bool:
    asked = subprocess.run([python, "-c", "import ensurepip, venv"], stdin=subprocess.DEVNULL, capture_output=True)
    return asked.returncode == 0


def _parsing(command: Command[Completed]) -> Command[Versions]:
    return Command(command.argv, command.env, lambda done: _parse_versions(done.stdout), "list the image's packages")


def _parse_versions(text: str) -> Versions:
    record: list[Any] = json.loads(text.rpartition("PACKAGES:")[2].splitlines()[0])
    python, packages = record
    return Versions(python, {_normalize(name): version for name, version in packages.items()})


def _normalize(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
