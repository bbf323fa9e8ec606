"""An image that is built in no time, and a way to ask an image."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyter_apptainer.engine.command import Completed
from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.options import build_exec
from jupyter_apptainer.engine.runner import Runner
from jupyter_apptainer.images.build import build_image
from jupyter_apptainer.images.recipes.recipe import load_definition
from jupyter_apptainer.places import Places

Ask = Callable[..., str]
_PROGRAMS = [
    "sh",
    "bash",
    "cat",
    "chmod",
    "chown",
    "cp",
    "date",
    "dirname",
    "echo",
    "env",
    "gzip",
    "id",
    "ln",
    "ls",
    "mkdir",
    "mv",
    "readlink",
    "rm",
    "sed",
    "sleep",
    "stat",
    "tar",
    "test",
    "touch",
]


@pytest.fixture(scope="session")
def small_image(engine: EngineInfo, places: Places, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of a shell and a few programs of this host: it is built and unpacked in no time."""
    folder = tmp_path_factory.mktemp("small")
    programs = [found for name in _PROGRAMS if (found := shutil.which(name))]
    listing = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    libraries = sorted(set(re.findall(r"(/\S+) \(0x", listing)))
    lines = [f"    {program} /usr/bin/" for program in programs] + [f"    {path}" for path in libraries]
    lines.append("    /etc/os-release")
    setup = 'cd "$APPTAINER_ROOTFS" && mkdir -p usr/bin mnt opt && ln -sfn usr/bin bin'
    text = "\n".join(
        ["Bootstrap: scratch", "", "%setup", f"    {setup}", "%files", *lines, "", "%post", "    true", ""]
    )
    definition = folder / "small.def"
    definition.write_text(text)
    return build_image(engine, places, load_definition(definition), folder / "small.sif").path


@pytest.fixture
def ask(engine: EngineInfo) -> Ask:
    """Run a program in an image and return what it prints."""

    def run(image: Path, *argv: str) -> str:
        command = build_exec(engine, str(image), argv, build_engine_environment(os.environ), timeout_s=60)
        completed: Completed = Runner().run(command)
        return completed.stdout.strip()

    return run
