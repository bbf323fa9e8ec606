"""The recipes in examples/, built once for all tests, on the starter image and from this host's mirror and indexes.

Where a registry can be reached they begin with Debian's image; the arguments that lead to another one are part of each.
JPA_TEST_EXAMPLES names a folder of the account that builds them, for another run of the tests beside it (tools/run-tests.sh).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyter_apptainer.engine.locate import EngineInfo

FOLDER = Path(__file__).resolve().parent.parent / "examples"
BuildExample = Callable[[str], Path]

# Options of `image build` behind the image's name; paths start from examples/NAME.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "nginx": ("--def", "nginx.def"),
    "url-to-pdf": ("--def", "url-to-pdf.def"),
    # The course's packages are large, so some small ones of the same authors stand for them.
    "fastai-course": ("--def", "fastai.def", "--build-arg", "PACKAGES=fastcore fastprogress"),
    "slurm-job": ("--dockerfile", "Dockerfile"),
    "mpi": (".",),
    "reproducibility": ("--environment", "figures/environment.yml", "--pypi"),
    "reproducibility/solver": ("--environment", "environment.yml", "--pypi"),
}


def build_options(name: str, base: Path) -> list[str]:
    """Return the options that build an example on an image of this machine."""
    options = list(_OPTIONS[name])
    if options[0] == "--def":
        return [*options, "--build-arg", "BOOTSTRAP=localimage", "--build-arg", f"FROM={base}"]
    return [*options, "--base", str(base)]


@pytest.fixture(scope="session")
def build_example(engine: EngineInfo, starter_image: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildExample:
    """Build an example with the command line, once, and return its image."""
    folder = tmp_path_factory.mktemp("examples")
    program = Path(sysconfig.get_path("scripts")) / "jupyter-apptainer"

    def build(name: str) -> Path:
        image = folder / f"{name.replace('/', '-')}.sif"
        if not image.exists() and not _take_shared(image):
            argv: list[str | Path] = [
                program,
                "image",
                "build",
                image,
                *build_options(name, starter_image),
                "--host-settings",
            ]
            subprocess.run(argv, cwd=FOLDER / name, stdin=subprocess.DEVNULL, check=True, timeout=800)
            _share(image)
        return image

    return build


def _take_shared(image: Path) -> bool:
    folder = os.environ.get("JPA_TEST_EXAMPLES")
    if not folder or not Path(folder, image.name).exists():
        return False
    # A copy: in a namespace of root's own, another user's files are closed to it.
    shutil.copy(Path(folder, image.name), image)
    return True


def _share(image: Path) -> None:
    folder = os.environ.get("JPA_TEST_EXAMPLES")
    # Root's run takes, and does not give: an ordinary user has to have built what an ordinary user tests.
    if folder and os.geteuid() == os.stat(folder).st_uid != 0:
        # It gets its name when it is whole.
        part = Path(folder, f".{image.name}")
        shutil.copy(image, part)
        part.rename(Path(folder, image.name))
