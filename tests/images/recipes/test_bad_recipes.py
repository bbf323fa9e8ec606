"""Recipes that cannot work: each mistake is named with its line, its reason and a way out, before anything is built.

What is expected stands at the end of each file: `# finding: LINE SEVERITY CODE WORDS`, all of them, in order.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from jupyter_apptainer.errors import RecipeInvalid, SpecError
from jupyter_apptainer.images.preflight import raise_for_errors
from jupyter_apptainer.images.recipes.findings import Finding
from jupyter_apptainer.images.recipes.python.load import load_project
from jupyter_apptainer.images.recipes.recipe import load_definition
from jupyter_apptainer.images.recipes.sources import Kind, load_recipe

FOLDER = Path(__file__).parent / "bad"
FILES = sorted(FOLDER.iterdir())
KINDS: dict[str, Kind] = {
    ".def": "def",
    ".dockerfile": "dockerfile",
    ".requirements.txt": "requirements",
    ".environment.yml": "environment",
    ".pyproject.toml": "requirements",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to build in, with little in it."""
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "outside.whl").touch()
    for name in ("requirements.txt", "ignored.txt"):
        (place / name).touch()
    (place / ".dockerignore").write_text("ignored.txt\n")
    (place / "dangling").symlink_to("nowhere")
    monkeypatch.chdir(place)
    return place


def test_corpus_is_large() -> None:
    assert len(FILES) >= 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_mistake_is_found(path: Path, folder: Path) -> None:
    _, _, suffix = path.name.partition(".")
    name = "pyproject.toml" if suffix == "pyproject.toml" else path.name
    copy = Path(shutil.copy(path, folder / name))
    base = "" if suffix in ("def", "dockerfile") else "debian:12"
    found = load_recipe(KINDS[f".{suffix}"], copy, base=base).findings
    expected = [line.split(" ", 3) for line in re.findall(r"^# finding: (.*)$", path.read_text(), re.MULTILINE)]
    assert [(str(each.line), each.severity, each.code) for each in found] == [
        (line, severity, code) for line, severity, code, _ in expected
    ]
    for finding, (_, _, _, words) in zip(found, expected, strict=True):
        assert words in f"{finding.reason} {finding.hint}"


def test_file_that_lies_beside_the_definition_is_pointed_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data.csv").touch()
    definition = tmp_path / "a.def"
    definition.write_text("Bootstrap: docker\nFrom: debian:12\n%files\n    data.csv /data.csv\n")
    (finding,) = load_definition(definition).findings
    assert (finding.line, finding.code) == (4, "file-missing")
    assert f"run the command in {tmp_path}" in finding.hint
    assert not load_definition(definition, folder=tmp_path).findings


@pytest.mark.parametrize("kind", ["def", "dockerfile"])
def test_build_argument_that_is_not_used_is_an_error(kind: Kind, folder: Path) -> None:
    recipe = folder / "recipe"
    recipe.write_text("Bootstrap: docker\nFrom: a:{{ TAG }}\n" if kind == "def" else "ARG TAG\nFROM a:$TAG\n")
    assert not load_recipe(kind, recipe, build_args={"TAG": "1"}).findings
    (finding,) = load_recipe(kind, recipe, build_args={"TAG": "1", "TAGS": "2"}).findings
    assert (finding.severity, finding.code) == ("error", "argument-unused")
    assert "did you mean TAG?" in finding.hint


def test_project_gets_a_python_that_it_wants(folder: Path) -> None:
    project = folder / "pyproject.toml"
    (folder / "dangling").unlink()
    project.write_text('[project]\nname = "a"\nversion = "1"\nrequires-python = "<3.11"\n')
    (finding,) = load_project(project, base="debian:12", python="3.12").findings
    assert (finding.severity, finding.code) == ("error", "requires-python")
    assert not load_project(project, base="debian:12").findings


def test_error_names_the_first_finding_and_counts_the_others() -> None:
    findings = (
        Finding(3, "error", "a", "wrong", "mend it"),
        Finding(4, "error", "b", "bad"),
        Finding(5, "note", "c", "so"),
    )
    with pytest.raises(RecipeInvalid) as caught:
        raise_for_errors(findings, Path("x.def"))
    assert caught.value.message == "nothing was built: x.def:3: error: wrong (mend it), and 1 more"
    assert caught.value.log_tail == ("x.def:4: error: bad",)
    raise_for_errors(findings[2:], Path("x.def"))


def test_recipe_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"there is no file .*nosuch\.def"):
        load_recipe("def", folder / "nosuch.def")
