"""Python environments and folders of them: what becomes of each file, as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_apptainer.errors import SpecError
from jupyter_apptainer.images.recipes.check import check_definition
from jupyter_apptainer.images.recipes.python.folder import load_folder
from jupyter_apptainer.images.recipes.python.load import choose_system
from jupyter_apptainer.images.recipes.recipe import Recipe
from jupyter_apptainer.images.recipes.sources import load_recipe

Files = dict[str, str]


def write(folder: Path, files: Files) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def load(folder: Path, files: Files) -> Recipe:
    """Load a folder with these files; the definition must be one that the engine reads as it is meant."""
    recipe = load_folder(write(folder, files), base="example/base:1")
    assert not [each.render() for each in check_definition(recipe.definition) if each.severity == "error"]
    return recipe


def test_requirements_are_in_the_definition_with_nested_ones_in_their_place(tmp_path: Path) -> None:
    recipe = load(
        tmp_path,
        {
            "requirements.txt": "numpy>=1  # fast\n-r extra/more.txt\n",
            "extra/more.txt": "-r ../requirements.txt\n./local.whl\n-c pins.txt\n",
            "extra/local.whl": "",
            "extra/pins.txt": "",
        },
    )
    assert "'numpy>=1'" in recipe.definition
    assert "./extra/local.whl" in recipe.definition
    assert "'--constraint extra/pins.txt'" in recipe.definition
    assert (
        "    extra/local.whl /.copied/extra/local.whl\n    extra/pins.txt /.copied/extra/pins.txt\n"
        in recipe.definition
    )
    assert recipe.definition.count("numpy") == 1
    assert recipe.folder == tmp_path
    assert "pip install ipykernel" in recipe.definition


def test_environment_is_kept_as_written_and_its_variables_are_set(tmp_path: Path) -> None:
    text = "name: a\nchannels: [conda-forge]\ndependencies:\n  - python=3.11\n  - pip\n  - pip:\n    - ./tool\nvariables:\n  WHO: it's me\n"
    recipe = load(tmp_path, {"environment.yml": text, "tool/pyproject.toml": ""})
    assert "'  - python=3.11' \\" in recipe.definition
    assert "micromamba create -y -p /opt/env -f environment.yml" in recipe.definition
    assert "export WHO='it'\"'\"'s me'" in recipe.definition
    assert "    tool /.copied/tool\n" in recipe.definition
    assert "conda-forge ipykernel" in recipe.definition


def test_project_is_installed_without_what_does_not_belong_to_it(tmp_path: Path) -> None:
    recipe = load(
        tmp_path,
        {
            "pyproject.toml": '[project]\nname = "a"\nversion = "1"\n',
            "src/a.py": "",
            "src/__pycache__/a.pyc": "",
            ".venv/pyvenv.cfg": "",
            "big.sif": "",
        },
    )
    assert "    src/a.py /.copied/project/src/a.py\n" in recipe.definition
    assert "pip install /.copied/project" in recipe.definition
    assert not [word for word in ("__pycache__", ".venv", "big.sif") if word in recipe.definition]


def test_folder_of_binder_brings_packages_and_a_script(tmp_path: Path) -> None:
    recipe = load(
        tmp_path,
        {
            "notebook.ipynb": "{}",
            "requirements.txt": "not-this-one\n",
            "binder/requirements.txt": "idna\n",
            "binder/apt.txt": "graphviz  # for plots\ntree\n",
            "binder/runtime.txt": "python-3.11\n",
            "binder/postBuild": "#!/bin/sh\ntrue\n",
            "binder/start": "",
        },
    )
    assert "not-this-one" not in recipe.definition
    assert "install graphviz tree" in recipe.definition
    assert "    ./. /.copied/folder/\n" in recipe.definition
    assert "./binder/postBuild" in recipe.definition
    assert [(each.severity, each.code) for each in recipe.findings] == [("warning", "file-left-out")]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(
            {"Apptainer": "Bootstrap: scratch\n", "Dockerfile": "FROM a\n"}, "Bootstrap: scratch", id="definition"
        ),
        pytest.param({"Dockerfile": "FROM a\n", "requirements.txt": "b\n"}, "From: example/base:1", id="dockerfile"),
        pytest.param(
            {"environment.yml": "dependencies: [python]\n", "requirements.txt": "b\n"}, "/opt/env", id="conda"
        ),
        pytest.param({"requirements.txt": "b\n", "pyproject.toml": "[project]\n"}, "requirements.txt", id="pip"),
        pytest.param({"pyproject.toml": "[project]\n"}, "/.copied/project", id="project"),
    ],
)
def test_first_recipe_of_a_folder_counts(files: Files, expected: str, tmp_path: Path) -> None:
    assert expected in load(tmp_path, files).definition


@pytest.mark.parametrize(
    ("files", "code"),
    [
        pytest.param({"requirements.txt": "a\n", "apt.txt": "Not A Package!\n"}, "apt-package", id="apt"),
        pytest.param({"requirements.txt": "a\n", "runtime.txt": "r-4.1-2021-10-05\n"}, "runtime", id="runtime"),
    ],
)
def test_mistake_beside_the_recipe_is_found(files: Files, code: str, tmp_path: Path) -> None:
    assert code in {each.code for each in load_folder(write(tmp_path, files), base="example/base:1").errors}


def test_folder_without_a_recipe_is_refused_with_what_would_be_one(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load_folder(tmp_path)
    assert "requirements.txt" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        pytest.param("python:3.12", "Bootstrap: docker\nFrom: python:3.12", id="registry"),
        pytest.param("oras://example.org/a:1", "Bootstrap: oras\nFrom: example.org/a:1", id="oras"),
        pytest.param("oci-archive:a.tar", "Bootstrap: oci-archive\nFrom: {folder}/a.tar", id="archive"),
        pytest.param("root", "Bootstrap: localimage\nFrom: {folder}/root", id="folder"),
    ],
)
def test_base_is_what_a_person_calls_it(
    base: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"Dockerfile": "FROM debian\n", "a.tar": "x"})
    (tmp_path / "root/.singularity.d").mkdir(parents=True)
    recipe = load_recipe("dockerfile", tmp_path / "Dockerfile", base=base)
    assert expected.format(folder=tmp_path) in recipe.definition


def test_name_of_the_mirror_is_no_part_of_the_definition(tmp_path: Path) -> None:
    system, arguments = choose_system("mirror", "unused")
    write(tmp_path, {"requirements.txt": "idna\n"})
    recipe = load_recipe("requirements", tmp_path / "requirements.txt", base="mirror")
    assert system.base.agent == "debootstrap"
    assert arguments["MIRROR"] not in recipe.definition
    assert "MirrorURL: {{ MIRROR }}" in recipe.definition
    assert recipe.secret_args == arguments
    assert not [each for each in check_definition(recipe.definition, arguments) if each.severity == "error"]


def test_options_that_mean_nothing_for_a_recipe_are_errors(tmp_path: Path) -> None:
    write(tmp_path, {"a.def": "Bootstrap: scratch\n", "requirements.txt": "a\n"})
    assert load_recipe("def", tmp_path / "a.def", base="b").errors[0].code == "option-unfit"
    recipe = load_recipe("requirements", tmp_path / "requirements.txt", base="b", build_args={"A": "1"})
    assert recipe.errors[0].code == "option-unfit"
