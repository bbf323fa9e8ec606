"""Cells with a body: a program's input, variables that go in and come back, and recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_apptainer.errors import CommandError, SpecError
from jupyter_apptainer.magics.variables import Exchange
from tests.magics.conftest import Session


def test_the_body_is_the_programs_input(session: Session) -> None:
    assert session.run("%%apptainer exec $image\necho ${0##*/}\necho two | tr a-z A-Z").out == "sh\nTWO\n"
    assert session.run("%%apptainer shell-script $image\nfor i in 1 2; do echo $i; done").out == "1\n2\n"
    assert session.run("%%apptainer exec $image python3\nfor i in range(2):\n    print(i)").out == "0\n1\n"
    assert session.run("%%apptainer run $image\nprint(6 * 7)").out == "42\n"
    assert session.run("%%apptainer exec $image cat\n'quotes' $HOME {braces}\n").out == "'quotes' $HOME {braces}\n"


def test_variables_go_in_and_come_back(session: Session) -> None:
    session.get("data = {'a': [1, 2.5, None], 'é': 'ü'}\nuntouched = 1")
    outcome = session.run(
        "%%apptainer --var data --var new exec $image python3\nprint(sorted(data))\ndata['b'] = True\nnew = [data['a']]\nuntouched = 2"
    )
    assert (outcome.error, outcome.out) == (None, "['a', 'é']\n")
    assert session.variables["data"] == {"a": [1, 2.5, None], "é": "ü", "b": True}
    assert session.variables["new"] == [[1, 2.5, None]]
    assert session.variables["untouched"] == 1


def test_a_pickle_travels_only_where_it_is_asked_for(session: Session) -> None:
    outcome = session.run("%%apptainer --var s exec $image python3\ns = {1, 2}")
    assert isinstance(outcome.error, SpecError)
    assert "s:pickle" in str(outcome.error)
    assert "s" not in session.variables
    session.get("%%apptainer --var s:pickle exec $image python3\ns = {1, 2}")
    assert session.variables["s"] == {1, 2}


def test_a_failed_body_shows_its_own_lines_and_changes_nothing(session: Session) -> None:
    session.get("n = 1")
    outcome = session.run("%%apptainer --var n exec $image python3\nn = 2\nraise ValueError('no')")
    assert isinstance(outcome.error, CommandError)
    assert 'File "<cell>", line 2' in outcome.err
    assert "<stdin>" not in outcome.err
    assert session.variables["n"] == 1


def test_the_answer_is_found_in_whatever_pieces_it_comes() -> None:
    exchange = Exchange([("x", "json")], "", {}, ["python"])
    mark = exchange._mark
    shown: list[str] = []
    feed = exchange.filter(lambda _, text: shown.append(text))
    # {"x": ["json", "[1]"]}
    for character in f"a\x1eb{mark}eyJ4IjogWyJqc29uIiwgIlsxXSJdfQ==\n":
        feed("stdout", character)
    assert "".join(shown) == "a\x1eb"
    assert exchange.unpack() == {"x": [1]}


@pytest.mark.parametrize(
    "answer",
    ["%%%", "bnVsbA==", "eyJ4IjogWyJwaWNrbGUiLCAiZ0FOLiJdfQ=="],
    ids=["no base64", "no object", "a pickle for JSON"],
)
def test_a_damaged_answer_sets_nothing(answer: str) -> None:
    exchange = Exchange([("x", "json")], "", {}, ["python"])
    exchange.filter(lambda *_: None)("stdout", exchange._mark + answer)
    with pytest.raises(SpecError, match="damaged"):
        exchange.unpack()


def test_a_definition_below_the_line_becomes_an_image(session: Session, tmp_path: Path, root: Path) -> None:
    (tmp_path / "greeting.txt").write_text("hello from the host\n")
    header = f"Bootstrap: localimage\nFrom: {root}\n"
    outcome = session.run(
        f"%%apptainer build new.sif\n{header}%files\n    greeting.txt /greeting.txt\n%post\n    echo working\n"
        "%runscript\n    read line < /greeting.txt; echo $line\n"
    )
    assert outcome.error is None, outcome
    assert "Running %post" in outcome.err
    assert "log: " in outcome.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["greeting.txt", "new.sif"]
    assert session.run("%apptainer run new.sif").out == "hello from the host\n"

    outcome = session.run(f"%%apptainer build --force new.sif\n{header}%post\n    exit 3")
    assert isinstance(outcome.error, CommandError)
    assert "whole log is in" in str(outcome.error)
    assert session.run("%apptainer run new.sif").out == "hello from the host\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["greeting.txt", "new.sif"]


def test_a_mistake_in_a_recipe_is_named_with_the_line_of_the_cell(session: Session, tmp_path: Path) -> None:
    outcome = session.run("%%apptainer build new.sif\nBootstrap: docker\nFrom: debian:12\n\n%pots\n    true\n")
    assert isinstance(outcome.error, SpecError)
    assert "line 5 of the cell: error: unknown section %pots (did you mean %post?)" in str(outcome.error)
    outcome = session.run("%%apptainer build --dockerfile new.sif\nFROM debian:12\nRUM true\n")
    assert isinstance(outcome.error, SpecError)
    assert "line 3 of the cell" in str(outcome.error)
    assert list(tmp_path.iterdir()) == []
