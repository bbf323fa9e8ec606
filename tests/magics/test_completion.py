"""Tab, as IPython's completer answers it."""

from __future__ import annotations

from pathlib import Path

import pytest
from IPython.core.completer import provisionalcompleter

from tests.magics.conftest import Session


def complete(session: Session, text: str) -> dict[str, str]:
    """Return what Tab offers at the end of `text`, with descriptions."""
    with provisionalcompleter():
        found = list(session.shell.Completer.completions(text, len(text)))
    return {each.text: each.type or "" for each in found}


@pytest.mark.parametrize(
    ("text", "offered"),
    [
        pytest.param("%apptainer inst", "instance", id="command"),
        pytest.param("x = %apptainer instance st", "start", id="below a command"),
        pytest.param("%%apptainer exe", "exec", id="first line of a cell"),
        pytest.param("%apptainer exec --bi", "--bind", id="option"),
        pytest.param("%apptainer --out x pull --dis", "--disable-cache", id="behind options of the magic"),
        pytest.param("%apptainer --no-r", "--no-raise-error", id="option of the magic"),
        pytest.param("%apptainer ima", "images", id="word of ours"),
        pytest.param("%apptainer kernel ad", "add", id="below a word of ours"),
        pytest.param("%apptainer kernel add --over", "--overlay", id="option of ours"),
        pytest.param("%apptainer exec --nv la", "lab.sif", id="image"),
        pytest.param("%apptainer exec sub/d", "sub/deep.sif", id="image in a folder"),
        pytest.param("%apptainer instance lo", "logs", id="logs"),
        pytest.param("%%apptainer build x.sif\nBoo", "Bootstrap: ", id="header"),
        pytest.param("%%apptainer build x.sif\nBootstrap: locali", "localimage", id="agent"),
        pytest.param("%%apptainer build x.sif\nBootstrap: docker\nFrom: a\n%po", "%post", id="section"),
    ],
)
def test_tab_offers(session: Session, tmp_path: Path, text: str, offered: str) -> None:
    (tmp_path / "lab.sif").touch()
    (tmp_path / "lab.txt").touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/deep.sif").touch()
    found = complete(session, text)
    assert offered in found
    assert found[offered]
    assert "lab.txt" not in found


@pytest.mark.parametrize(
    "text", ["appt = 1\nprint(ap", "%timeit ran", "%%apptainer build x.sif\nBootstrap: docker\n%post\n  pri"]
)
def test_other_lines_are_left_to_others(session: Session, text: str) -> None:
    offered = complete(session, text)
    assert not {"instance", "Bootstrap: ", "%post"} & set(offered)
