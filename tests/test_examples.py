"""The recipes in examples/: each is built as its README says, and does what it promises.

Once, by an ordinary user: what they prove is the same for root. The services run in tests/test_notebooks.py.
"""

from __future__ import annotations

import os
import shutil
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyter_apptainer.engine.apt import find_mirror
from jupyter_apptainer.engine.command import Completed
from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.options import Bind, ContainerOptions, build_exec
from jupyter_apptainer.engine.runner import Runner
from jupyter_apptainer.images.build import BuildOptions, build_image
from jupyter_apptainer.images.catalogue import load_image
from jupyter_apptainer.images.recipes.sources import load_recipe
from jupyter_apptainer.places import Places
from tests.examples import FOLDER, BuildExample

# They fetch packages, and share the machine with another suite.
pytestmark = [pytest.mark.user, pytest.mark.slow, pytest.mark.timeout(900)]
Ask = Callable[..., str]


@pytest.fixture
def ask(engine: EngineInfo, tmp_path: Path) -> Ask:
    """Run a program in an image, with a folder of the host at /data and as working directory, and return what it prints."""

    def run(image: Path, *argv: str) -> str:
        options = ContainerOptions(binds=(Bind(str(tmp_path), "/data"),), home="none")
        environ = build_engine_environment(os.environ)
        command = build_exec(engine, str(image), argv, environ, options=options, cwd="/data", timeout_s=120)
        completed: Completed = Runner().run(command)
        return completed.stdout.strip()

    return run


def test_service_is_built_from_python_and_nothing_of_the_mirror_stays(
    engine: EngineInfo, starter_image: Path, places: Places, tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FOLDER / "nginx")
    arguments = {"BOOTSTRAP": "localimage", "FROM": str(starter_image)}
    recipe = load_recipe("def", Path("nginx.def"), build_args=arguments)
    assert not recipe.findings
    built = build_image(engine, places, recipe, tmp_path / "nginx.sif", BuildOptions(has_host_settings=True))
    host = urllib.parse.urlsplit(find_mirror().uri).hostname
    assert host
    found = ask(
        built.path,
        "sh",
        "-c",
        f"grep -rlsF {host} /etc /var/cache /var/lib /var/log /.singularity.d || true; ls -A /mnt /var/lib/apt/lists",
    )
    assert found.split() == ["/mnt:", "/var/lib/apt/lists:"]
    assert "nginx -g 'daemon off;'" in ask(built.path, "cat", "/.singularity.d/startscript")


def test_apps_of_the_service_are_found_in_its_image(build_example: BuildExample, places: Places) -> None:
    content = load_image(places, str(build_example("url-to-pdf"))).content
    assert content.apps == ("pdf_client", "pdf_server")


def test_course_has_its_packages_and_a_server(build_example: BuildExample, ask: Ask) -> None:
    image = build_example("fastai-course")
    assert ask(image, "python3", "-c", "import fastcore, fastprogress, ipywidgets; print('all')") == "all"
    assert ask(image, "jupyter", "server", "--version")


def test_environment_has_the_packages_and_variables_that_it_names(build_example: BuildExample, ask: Ask) -> None:
    code = "import os, numpy, scipy, tqdm; print(numpy.__version__.split('.')[0], os.environ['MPLBACKEND'])"
    assert ask(build_example("reproducibility"), "python3", "-c", code) == "2 agg"


@pytest.mark.long
def test_solver_that_conda_has_is_made_of_debian_and_runs_on_two_ranks(
    build_example: BuildExample, ask: Ask, tmp_path: Path
) -> None:
    image = build_example("reproducibility/solver")
    shutil.copy(FOLDER / "reproducibility/solver/poisson.py", tmp_path)
    told = ask(image, "mpiexec", "--noprefix", "--oversubscribe", "-n", "2", "python3", "poisson.py")
    assert told.startswith("ranks: 2, PETSc 3.")
    assert told.endswith("largest value: 0.1250")
    assert ask(image, "sh", "-c", 'ls "$PETSC_DIR/include/petscksp.h"')


def test_job_of_a_dockerfile_takes_its_arguments_as_with_docker(
    build_example: BuildExample, ask: Ask, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").touch()
    image = build_example("slurm-job")
    lines = ask(image, "/.singularity.d/runscript").splitlines()
    assert lines[0] == "models: /data/huggingface; data: ['a.csv']"
    assert lines[-1] == "epoch 3 of 3"
    assert ask(image, "/.singularity.d/runscript", "--epochs", "1").splitlines()[-1] == "epoch 1 of 1"


def test_program_is_compiled_and_run_on_two_ranks(build_example: BuildExample, ask: Ask, tmp_path: Path) -> None:
    image = build_example("mpi")
    for name in ("poisson.c", "Makefile"):
        shutil.copy(FOLDER / "mpi" / name, tmp_path)
    ask(image, "make")
    assert (tmp_path / "poisson").stat().st_uid == os.getuid()
    assert ask(image, "mpiexec", "-n", "2", "./poisson").startswith("ranks: 2, ")
