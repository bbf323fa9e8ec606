"""Which notebook a kernel is for, and what its file says: any file may stand there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from jupyter_apptainer.errors import PolicyError, SpecError
from jupyter_apptainer.kernels.notebook import SESSION_VARIABLE, VARIABLE, find_notebook, load_settings


def write(path: Path, metadata: object) -> str:
    path.write_text(json.dumps({"cells": [], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))
    return str(path)


@pytest.mark.parametrize(
    ("request_", "own", "root", "expected"),
    [
        pytest.param({SESSION_VARIABLE: "/r/a.ipynb"}, {}, "/r", "/r/a.ipynb", id="session"),
        pytest.param({SESSION_VARIABLE: "d/a.ipynb"}, {}, "/r", "/r/d/a.ipynb", id="path of the server's API"),
        pytest.param({SESSION_VARIABLE: "/r/./d/../a.ipynb"}, {}, "/r", "/r/a.ipynb", id="dots within the folder"),
        pytest.param({SESSION_VARIABLE: "/r/a.ipynb"}, {}, None, "/r/a.ipynb", id="no server"),
        pytest.param({SESSION_VARIABLE: "/a.ipynb"}, {}, "/", "/a.ipynb", id="server shows all"),
        pytest.param({SESSION_VARIABLE: "/r/Console 1"}, {}, "/r", None, id="console"),
        pytest.param({SESSION_VARIABLE: "/r/a.py"}, {}, "/r", None, id="text notebook"),
        pytest.param({SESSION_VARIABLE: "/r/a\0.ipynb"}, {}, "/r", None, id="null character"),
        pytest.param({SESSION_VARIABLE: "/o.ipynb"}, {SESSION_VARIABLE: "/o.ipynb"}, None, None, id="inherited"),
        pytest.param({VARIABLE: "/a.ipynb"}, {}, None, "/a.ipynb", id="variable"),
        pytest.param(
            {SESSION_VARIABLE: "/r/a.ipynb", VARIABLE: "/b.ipynb"}, {}, "/r", "/r/a.ipynb", id="session before variable"
        ),
        pytest.param({}, {}, "/r", None, id="nothing"),
    ],
)
def test_notebook_of_a_start(
    request_: dict[str, str], own: dict[str, str], root: str | None, expected: str | None
) -> None:
    assert find_notebook(request_, own, root) == expected


def test_path_from_the_variable_starts_at_the_current_folder() -> None:
    assert find_notebook({VARIABLE: "a.ipynb"}, {}) == f"{os.getcwd()}/a.ipynb"


@pytest.mark.parametrize("path", ["/etc/a.ipynb", "../a.ipynb", "/r/../a.ipynb", "/r2/a.ipynb"])
def test_notebook_outside_of_the_servers_folder_is_refused(path: str) -> None:
    with pytest.raises(PolicyError, match="outside"):
        find_notebook({SESSION_VARIABLE: path}, {}, "/r")


def test_settings_of_a_notebook(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ipynb", {"apptainer": {"nv": False}, "kernelspec": {"name": "x"}})
    assert load_settings(path) == {"nv": False}


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"apptainer": None},
        {"apptainer": {}},
        {"other": '"apptainer"'},
        [],
        None,
        "apptainer",
        {"\\u0061pptainer": 1},
    ],
    ids=repr,
)
def test_notebook_without_settings(tmp_path: Path, metadata: object) -> None:
    assert load_settings(write(tmp_path / "a.ipynb", metadata)) == {}


def test_notebook_that_was_not_saved_has_no_settings(tmp_path: Path) -> None:
    assert load_settings(str(tmp_path / "none.ipynb")) == {}
    assert load_settings(str(tmp_path / "none/none.ipynb")) == {}
    (tmp_path / "empty.ipynb").touch()
    assert load_settings(str(tmp_path / "empty.ipynb")) == {}


def test_field_is_found_across_the_blocks_in_which_a_file_is_read(tmp_path: Path) -> None:
    for length in range((1 << 20) - 60, (1 << 20) - 20, 3):
        text = '{"cells": "%s", "metadata": {"apptainer": {"nv": true}}}' % ("x" * length)
        (tmp_path / "a.ipynb").write_text(text)
        assert load_settings(str(tmp_path / "a.ipynb")) == {"nv": True}


@pytest.mark.parametrize("value", [[], [1], "x", 3, True, False, 0, ""], ids=repr)
def test_settings_that_are_no_object(tmp_path: Path, value: object) -> None:
    with pytest.raises(SpecError, match="expected an object"):
        load_settings(write(tmp_path / "a.ipynb", {"apptainer": value}))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        pytest.param('{"metadata": {"apptainer": ', "JSON", id="cut off"),
        pytest.param('{"apptainer": ' + "[" * 200_000, "JSON", id="deep"),
        pytest.param(json.dumps({"metadata": {"apptainer": {"env": {"A": "x" * 70_000}}}}), "characters", id="huge"),
        pytest.param(b'{"metadata": {"apptainer": "\xff"}}', "JSON", id="no UTF-8"),
    ],
)
def test_file_that_is_no_notebook(tmp_path: Path, text: str | bytes, word: str) -> None:
    (tmp_path / "a.ipynb").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SpecError, match=word):
        load_settings(str(tmp_path / "a.ipynb"))


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ipynb")
    (tmp_path / "folder.ipynb").mkdir()
    (tmp_path / "device.ipynb").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "device"):
        with pytest.raises(SpecError, match="not a file"):
            load_settings(str(tmp_path / f"{name}.ipynb"))


@pytest.mark.user
def test_notebook_that_cannot_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ipynb", {})
    os.chmod(path, 0)
    with pytest.raises(SpecError, match="cannot be read"):
        load_settings(path)
