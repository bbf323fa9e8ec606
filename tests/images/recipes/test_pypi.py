"""An environment.yml that is made of PyPI's packages: what pip is asked for, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_apptainer.errors import SpecError
from jupyter_apptainer.images.recipes.check import check_definition
from jupyter_apptainer.images.recipes.python.environment import CondaPackage, parse_environment
from jupyter_apptainer.images.recipes.python.pypi import translate_packages, translate_version
from jupyter_apptainer.images.recipes.sources import load_recipe
from tests.examples import FOLDER

_LESSON = FOLDER / "reproducibility"


@pytest.mark.parametrize(
    ("conda", "pip"),
    [
        pytest.param("", "", id="any"),
        pytest.param("=1.26", "==1.26.*", id="one-sign-is-a-beginning"),
        pytest.param("=1.26.*", "==1.26.*", id="with-a-star"),
        pytest.param("=2.*", "==2.*", id="major"),
        pytest.param("==1.26.4", "==1.26.4", id="exact"),
        pytest.param(" >= 1.2, <2", ">=1.2,<2", id="range-with-spaces"),
        pytest.param("=1.26.4=py311h64a7726_0", "==1.26.4.*", id="build-is-left-out"),
        pytest.param(" 1.26.4 py311_0", "==1.26.4", id="old-form"),
        pytest.param("1.26|1.27", None, id="alternatives"),
        pytest.param("[version='>=1']", None, id="brackets"),
    ],
)
def test_version_means_the_same_to_pip(conda: str, pip: str | None) -> None:
    assert translate_version(conda) == pip


def test_names_are_translated_and_unknown_ones_are_refused_with_their_lines() -> None:
    found = translate_packages(
        [
            CondaPackage("python=3.11", 1),
            CondaPackage("conda-forge::pytorch>=2", 2),
            CondaPackage("numpy", 3),
            CondaPackage("pytables", 4),
            CondaPackage("nobody-knows", 5),
            CondaPackage("matplotlib-base=3.9", 6),
        ]
    )
    assert found.lines == ["torch>=2", "numpy", "tables", "matplotlib==3.9.*"]
    assert found.python == "==3.11.*"
    assert [(each.line, each.code) for each in found.findings] == [(5, "not-on-pypi")]


def test_comment_says_what_a_package_is_without_conda(tmp_path: Path) -> None:
    path = tmp_path / "environment.yml"
    path.write_text(
        "dependencies:\n"
        "  - 'forge-name>=2'  # pip: index-name\n"
        "  - forge-tool=1.5 # apt: tool libtool-dev\n"
        "  - numpy  # apt is not meant here\n"
        "  - bad-one # apt: Not A Name\n"
        "  - worse-one # pip: ==\n"
    )
    found = translate_packages(parse_environment(path.read_text(), path, tmp_path).packages)
    assert found.lines == ["index-name>=2", "numpy"]
    assert found.system.apt == ["tool", "libtool-dev"]
    errors = [(each.line, each.code) for each in found.findings if each.severity == "error"]
    assert errors == [(5, "apt-package"), (6, "requirement-invalid")]


def test_environment_of_python_packages_becomes_a_definition_for_pip() -> None:
    recipe = load_recipe("environment", _LESSON / "figures/environment.yml", base="debian:12", has_conda=False)
    assert not recipe.findings
    assert not [each for each in check_definition(recipe.definition) if each.severity == "error"]
    for wanted in ("'numpy==2.*'", "'matplotlib>=3.9,<4'", "tqdm", "export MPLBACKEND=agg", "SpecifierSet("):
        assert wanted in recipe.definition
    assert "conda" not in recipe.definition


def test_what_is_no_python_package_comes_from_debian() -> None:
    path = _LESSON / "solver/environment.yml"
    recipe = load_recipe("environment", path, base="debian:12", has_conda=False)
    assert not recipe.errors
    named = {path.read_text().splitlines()[each.line - 1].strip("- ").split("=")[0] for each in recipe.findings}
    assert named == {"c-compiler", "cmake", "make", "openmpi", "petsc", "petsc4py"}
    for wanted in (
        " install gcc libc6-dev cmake make openmpi-bin libopenmpi-dev libpetsc-real-dev\n",
        '[["petsc", "libpetsc-real-dev", "==3.*"]]',
        '[["petsc4py", "libpetsc-real-dev"]]',
        "'--constraint system.txt'",
        "export PETSC_DIR=/usr/lib/petsc",
    ):
        assert wanted in recipe.definition
    assert (
        "micromamba create -y -p /opt/env -f environment.yml" in load_recipe("environment", path, base="a").definition
    )


def test_mirror_has_no_conda_and_that_is_said() -> None:
    with pytest.raises(SpecError) as caught:
        load_recipe("environment", _LESSON / "figures/environment.yml", base="mirror")
    assert "--pypi" in str(caught.value.hint)
