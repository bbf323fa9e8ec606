"""Definition files of many shapes: read as the engine reads them, and nothing found where nothing is wrong.

What is expected stands at the end of each file: `# expect: stages=AGENTS sections=NAMES`, `# finding: LINE SEVERITY CODE`,
`# copies: SOURCE>DESTINATION …`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jupyter_apptainer.images.recipes.check import check_definition
from jupyter_apptainer.images.recipes.check_files import check_files
from jupyter_apptainer.images.recipes.definition import apply_arguments, parse_definition, resolve

FOLDER = Path(__file__).parent / "definitions"
FILES = sorted(FOLDER.iterdir())


def read_notes(text: str, key: str) -> list[str]:
    """Return what stands behind `# key:` in a file of the corpus."""
    return re.findall(rf"^# {key}: (.*?)\r?$", text, re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the definition files of the corpus name."""
    place = tmp_path_factory.mktemp("context")
    for name in ("hello.txt", "other.txt", "with space.txt", "environment.yml", "saved.tar", "image.tar"):
        (place / name).touch()
    for name in ("folder", "layout", "linked", "sandbox/.singularity.d"):
        (place / name).mkdir(parents=True)
    (place / "linked/link").symlink_to("../hello.txt")
    return place


def test_corpus_is_large() -> None:
    assert len(FILES) >= 60


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_definition_is_read_and_checked(path: Path, folder: Path) -> None:
    text = path.read_bytes().decode()
    definition = resolve(parse_definition(text), {})
    (facts,) = read_notes(text, "expect")
    stages, sections = re.fullmatch(r"stages=(\S+) sections=(\S*)", facts).groups()  # type: ignore[union-attr]  # or it fails
    assert [stage.agent for stage in definition.stages] == stages.split(",")
    assert [section.name for stage in definition.stages for section in stage.sections] == [
        *filter(None, sections.split(","))
    ]
    findings = [*check_definition(text), *check_files(definition, folder)]
    found = [f"{each.line} {each.severity} {each.code}" for each in findings]
    assert found == read_notes(text, "finding")
    for copies in read_notes(text, "copies"):
        made = [f"{copy.source}>{copy.destination}" for stage in definition.stages for copy in stage.iter_files()]
        assert " ".join(made) == copies


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a {{ X }} b", "a 1 b", id="spaces"),
        pytest.param("{{X}}{{ X}}", "11", id="none"),
        pytest.param("{{ Y }}", "see 1", id="nested"),
        pytest.param("# {{ X }}", "# {{ X }}", id="comment"),
        pytest.param("a#b {{ X }}", "a#b {{ X }}", id="behind-hash"),
        pytest.param("#!/bin/{{ X }}", "#!/bin/1", id="shebang"),
        pytest.param("{{ Z }} {{.X}}", "{{ Z }} {{.X}}", id="unknown"),
    ],
)
def test_arguments_are_replaced_as_the_engine_does(text: str, expected: str) -> None:
    assert apply_arguments(text, {"X": "1", "Y": "see {{ X }}"}) == expected


def test_given_argument_wins_over_the_default() -> None:
    definition = parse_definition("Bootstrap: docker\nFrom: {{ A }}\n%arguments\n A=old\n")
    (stage,) = resolve(definition, {"A": "new"}).stages
    header = stage.get_header("from")
    assert header
    assert header.value == "new"


def test_apps_and_lines_are_known() -> None:
    (stage,) = parse_definition("Bootstrap: scratch\n\n%appinstall foo\n    a\n    b\n").stages
    (section,) = stage.sections
    assert (section.app, section.line, section.body) == ("foo", 3, "    a\n    b\n\n")
    assert [line.number for line in section.lines] == [4, 5, 6]
