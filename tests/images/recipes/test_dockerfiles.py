"""Dockerfiles of many shapes, and the definition files that are made of them.

What is expected stands at the end of each file: `# contains: TEXT` (or `TEXT||TEXT`), `# lacks: TEXT`, `# lacks-after MARK: TEXT`,
`# finding: LINE SEVERITY CODE`, `# args: NAME=VALUE …`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jupyter_apptainer.images.recipes.check import check_definition
from jupyter_apptainer.images.recipes.definition import parse_definition
from jupyter_apptainer.images.recipes.dockerfile.context import Context, parse_ignore
from jupyter_apptainer.images.recipes.dockerfile.translate import translate_dockerfile
from jupyter_apptainer.images.recipes.dockerfile.words import expand
from jupyter_apptainer.images.recipes.recipe import name_lines
from jupyter_apptainer.images.recipes.sources import load_recipe

FOLDER = Path(__file__).parent / "dockerfiles"
FILES = sorted(FOLDER.iterdir())


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """The folder that the corpus copies from."""
    place = tmp_path_factory.mktemp("context")
    for name in (
        "run.sh",
        "archive.tar.gz",
        "with space.txt",
        "secret.key",
        "notes.md",
        "src/a.c",
        "src/b.c",
        "src/a.h",
    ):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).touch()
    (place / "link").symlink_to("run.sh")
    (place / ".dockerignore").write_text("# what stays here\n*.key\n**/*.md\n")
    return Context.load(place)


def test_corpus_is_large() -> None:
    assert len(FILES) >= 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_dockerfile_is_translated(path: Path, context: Context) -> None:
    text = path.read_text()
    notes = re.findall(r"^# (contains|lacks|lacks-after [^:]+|finding|args): (.*)$", text, re.MULTILINE)
    build_args = dict(word.split("=") for key, value in notes if key == "args" for word in value.split())
    made = translate_dockerfile(text, context, build_args=build_args)
    assert [f"{each.line} {each.severity} {each.code}" for each in made.findings] == [
        value for key, value in notes if key == "finding"
    ]
    for key, value in notes:
        if key == "contains":
            assert any(choice in made.definition for choice in value.split("||")), f"{value}\n\n{made.definition}"
        elif key.startswith("lacks"):
            mark = key.partition(" ")[2]
            assert value not in (made.definition.partition(mark)[2] if mark else made.definition), made.definition
    # The engine must read what was written as it was meant.
    assert not [finding.render() for finding in check_definition(made.definition) if finding.severity == "error"]
    stages = parse_definition(made.definition).stages
    assert len(stages) == made.definition.count("\nBootstrap: ") + 1


def test_base_replaces_that_of_the_last_stage_alone(context: Context) -> None:
    text = "FROM golang:1 AS build\nFROM debian:12 AS mid\nFROM mid\nCOPY --from=build /a /b\n"
    made = translate_dockerfile(text, context, base="oci-archive:base.tar")
    assert [stage.agent for stage in parse_definition(made.definition).stages] == ["docker", "oci-archive"]


def test_target_ends_with_that_stage(context: Context) -> None:
    text = "FROM debian:12 AS dev\nRUN echo dev\nFROM dev AS prod\nRUN echo prod\n"
    made = translate_dockerfile(text, context, target="dev")
    assert "echo dev" in made.definition
    assert "echo prod" not in made.definition


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        pytest.param("$A", '"1"', id="name"),
        pytest.param("${A}b", '"1b"', id="braces"),
        pytest.param("'$A'", r'"\$A"', id="single-quotes"),
        pytest.param('"x $A"', '"x 1"', id="double-quotes"),
        pytest.param(r"\$A", r'"\$A"', id="escaped"),
        pytest.param("$B/x", '"${B}/x"', id="unknown"),
        pytest.param("${B:-x}", '"${B:-x}"', id="unknown-with-default"),
        pytest.param("${E:-x}", '"x"', id="default-of-empty"),
        pytest.param("${E-x}", '""', id="empty-is-set"),
        pytest.param("${A:+y}", '"y"', id="alternative"),
        pytest.param("${P#*/}", '"b/c.tar.gz"', id="shortest-beginning"),
        pytest.param("${P##*/}", '"c.tar.gz"', id="longest-beginning"),
        pytest.param("${P%.*}", '"a/b/c.tar"', id="shortest-end"),
        pytest.param("${P%%.*}", '"a/b/c"', id="longest-end"),
        pytest.param("${P/b/x}", '"a/x/c.tar.gz"', id="replace"),
        pytest.param("${E:-${A}}", '"1"', id="nested"),
        pytest.param("a$", r'"a\$"', id="lone-dollar"),
        pytest.param("`x`", r'"\`x\`"', id="backquotes-run-nothing"),
    ],
)
def test_words_are_expanded_as_docker_does(word: str, expected: str) -> None:
    assert expand(word, {"A": "1", "E": "", "P": "a/b/c.tar.gz"}).shell == expected


@pytest.mark.parametrize(
    ("rules", "path", "is_ignored"),
    [
        pytest.param("*.md", "a.md", True, id="name"),
        pytest.param("*.md", "docs/a.md", False, id="not-below"),
        pytest.param("**/*.md", "docs/deep/a.md", True, id="any-depth"),
        pytest.param("docs", "docs/a.md", True, id="folder"),
        pytest.param("/docs/", "docs/a.md", True, id="slashes"),
        pytest.param("*\n!keep.txt", "keep.txt", False, id="exception"),
        pytest.param("*\n!src\nsrc/x", "src/x", True, id="last-rule-counts"),
        pytest.param("# *.md", "a.md", False, id="comment"),
        pytest.param("a?c", "abc", True, id="one-character"),
        pytest.param("[ab].txt", "b.txt", True, id="class"),
    ],
)
def test_ignore_file_is_read_as_docker_does(rules: str, path: str, is_ignored: bool) -> None:
    assert Context(Path("."), parse_ignore(rules)).is_ignored(path) == is_ignored


def test_lines_of_the_definition_are_those_of_whoever_wrote_it(tmp_path: Path) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM debian:12\nENV A=1\n\nRUN true\nRUN false\n")
    recipe = load_recipe("dockerfile", dockerfile)
    number = next(at for at, line in enumerate(recipe.definition.splitlines(), 1) if line.strip() == "false")
    assert name_lines(recipe, number - 1, number + 1) == f"{dockerfile}:5"
    definition = tmp_path / "a.def"
    definition.write_text("Bootstrap: docker\nFrom: debian:12\n%post\n    false\n")
    assert name_lines(load_recipe("def", definition), 4, 4) == f"{definition}:4"
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("idna\n")
    assert name_lines(load_recipe("requirements", requirements, base="debian:12"), 20, 22) == str(requirements)
