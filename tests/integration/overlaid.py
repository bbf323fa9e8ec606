"""An overlay, and what people install into it: a plugin, and words for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo, run_flags

if TYPE_CHECKING:
    from tests.integration.conftest import RunningKernel

PROGRAM = Path(sysconfig.get_path("scripts")) / "jupyter-apptainer"
# Pure Python and small, so that taking it away takes no time.
VICTIM = "cycler"


def overlay_command(*words: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `jupyter apptainer overlay WORDS…`."""
    done = subprocess.run(
        [PROGRAM, "overlay", *words],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    assert done.returncode == status, done.stderr
    return done


def read_info(path: Path | str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(overlay_command("info", path, "--json").stdout)
    return content


@pytest.fixture
def overlay(engine: EngineInfo, starter_image: Path, tmp_path: Path) -> Path:
    """An overlay of 64 MiB, made by the command line."""
    path = tmp_path / "my layer.img"
    overlay_command("create", path, "--size", "64M", "--image", starter_image)
    return path


def pip(kernel: RunningKernel, words: str) -> None:
    """Run `%pip WORDS` as people do; it prints what went wrong and raises nothing."""
    reply = kernel.run(f"%pip {words} --disable-pip-version-check")
    assert reply.status == "ok", reply
    assert "ERROR" not in reply.text, reply.text


def installed(kernel: RunningKernel) -> str | None:
    """Return the version of `tinything` that a fresh interpreter of the kernel's finds."""
    code = "import tinything; print(tinything.VERSION)"
    found: str | None = kernel.value(
        f"__import__('subprocess').run([__import__('sys').executable, '-c', {code!r}],"
        " capture_output=True, text=True).stdout.strip() or None"
    )
    return found


def count_victim(kernel: RunningKernel) -> int:
    """Say in how many versions the package that was uninstalled is there."""
    found: int = kernel.value(
        f"len([d for d in __import__('importlib.metadata').metadata.distributions() if d.metadata['Name'] == {VICTIM!r}])"
    )
    return found


@pytest.fixture
def make_small_image(tmp_path: Path) -> Callable[[], Path]:
    """Make a sandbox of a megabyte or two: the host's shell and a few commands, with their libraries."""

    def make() -> Path:
        root = tmp_path / "root"
        for folder in ("dev", "etc", "proc", "sys", "tmp", "var/tmp", "home", "root", "bin", "usr", "srv/gone"):
            (root / folder).mkdir(parents=True)
        for program in ("sh", "rm", "mkdir", "ln"):
            found = subprocess.run(["sh", "-c", f"command -v {program}"], capture_output=True, text=True, check=True)
            copy_program(Path(found.stdout.strip()), root)
        for name in ("old", "changed", "gone/old"):
            (root / "srv" / name).write_text("old\n")
        return root

    return make


def copy_program(path: Path, root: Path) -> None:
    """Copy a program and the libraries that the loader lists for it, each to its own place."""
    listing = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
    libraries = [word for line in listing.splitlines() for word in line.split() if word.startswith("/")]
    for source, target in [(path, f"/bin/{path.name}"), *((Path(library), library) for library in libraries)]:
        copy = root / target.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.resolve().read_bytes())
        copy.chmod(0o755)


@pytest.fixture
def run_in(engine: EngineInfo) -> Callable[..., str]:
    """Run a shell script in an image with the engine."""

    def run(image: Path, script: str, *flags: str) -> str:
        return subprocess.run(
            [
                engine.path,
                "-q",
                "exec",
                *run_flags(engine),
                "--contain",
                "--no-home",
                *flags,
                image,
                "/bin/sh",
                "-c",
                script,
            ],
            env=build_engine_environment(os.environ),
            capture_output=True,
            text=True,
            check=True,
            cwd="/",
        ).stdout

    return run
