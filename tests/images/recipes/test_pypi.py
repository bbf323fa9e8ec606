"""An environment.yml that is made of PyPI's packages: what pip is asked for, and what is refused."""

from __future__ import annotations

import pytest

from jupyter_apptainer.errors import SpecError
from jupyter_apptainer.images.recipes.check import check_definition
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
    lines, python, findings = translate_packages(
        [
            ("python=3.11", 1),
            ("conda-forge::pytorch>=2", 2),
            ("numpy", 3),
            ("pytables", 4),
            ("gcc_linux-64", 5),
            ("matplotlib-base=3.9", 6),
        ]
    )
    assert lines == ["torch>=2", "numpy", "tables", "matplotlib==3.9.*"]
    assert python == "==3.11.*"
    assert [(each.line, each.code) for each in findings] == [(5, "not-on-pypi")]


def test_environment_of_python_packages_becomes_a_definition_for_pip() -> None:
    recipe = load_recipe("environment", _LESSON / "figures/environment.yml", base="debian:12", has_conda=False)
    assert not recipe.findings
    assert not [each for each in check_definition(recipe.definition) if each.severity == "error"]
    for wanted in ("'numpy==2.*'", "'matplotlib>=3.9,<4'", "tqdm", "export MPLBACKEND=agg", "SpecifierSet("):
        assert wanted in recipe.definition
    assert "conda" not in recipe.definition


def test_environment_of_more_than_python_is_for_conda_alone() -> None:
    path = _LESSON / "solver/environment.yml"
    refused = load_recipe("environment", path, base="debian:12", has_conda=False)
    named = {path.read_text().splitlines()[each.line - 1].strip("- ").split("=")[0] for each in refused.errors}
    assert named == {"c-compiler", "cmake", "make", "openmpi", "petsc", "petsc4py"}
    assert refused.definition == ""
    recipe = load_recipe("environment", path, base="debian:12")
    assert not recipe.errors
    assert "micromamba create -y -p /opt/env -f environment.yml" in recipe.definition


def test_mirror_has_no_conda_and_that_is_said() -> None:
    with pytest.raises(SpecError) as caught:
        load_recipe("environment", _LESSON / "figures/environment.yml", base="mirror")
    assert "--pypi" in str(caught.value.hint)
