"""Policies: where they are read, that none loosens another, and that what is not understood stops everything."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from traitlets.config import Config

import jupyter_apptainer.policy as policy_module
from jupyter_apptainer.config import CONFIG_NAME
from jupyter_apptainer.errors import PolicyError
from jupyter_apptainer.policy import (
    ApptainerPolicy,
    NotebookPolicy,
    build_notebook_rules,
    forbids_notebooks,
    load_notebook_policy,
    load_policies,
    shows_other_users,
)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The machine's folder and the user's."""
    system, user = tmp_path / "system", tmp_path / "user"
    system.mkdir()
    user.mkdir()
    monkeypatch.setattr(policy_module, "SYSTEM_FOLDERS", (str(system),))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(user))
    return system, user


def write(folder: Path, *lines: str) -> None:
    (folder / f"{CONFIG_NAME}.py").write_text("".join(f"c.{line}\n" for line in lines))


def test_without_files_there_is_no_policy(folders: tuple[Path, Path]) -> None:
    assert load_policies() == ()
    assert forbids_notebooks() is None


def test_a_users_file_adds_to_the_machines_and_does_not_replace_it(folders: tuple[Path, Path]) -> None:
    system, user = folders
    write(system, "ApptainerPolicy.images = ['/shared']", "ApptainerPolicy.networks = ['none']")
    write(user, "ApptainerPolicy.images = ['*']", "ApptainerPolicy.networks = ['*']")
    first, second = load_policies()
    assert (first.images, first.networks) == (("/shared",), ("none",))
    assert str(system) in first.origin
    assert (second.images, second.networks) == (("*",), ("*",))


@pytest.mark.parametrize(
    "name", ["JUPYTER_CONFIG_DIR", "JUPYTER_CONFIG_PATH", "JUPYTER_NO_CONFIG", "JUPYTER_PREFER_ENV_PATH"]
)
def test_no_variable_of_jupyters_hides_the_machines_policy(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write(folders[0], "ApptainerPolicy.images = ['/shared']")
    monkeypatch.setenv(name, str(tmp_path))
    assert load_policies()[0].images == ("/shared",)


def test_the_servers_own_configuration_is_one_more_policy(folders: tuple[Path, Path]) -> None:
    write(folders[0], "ApptainerPolicy.images = ['/shared']")
    server = Config({"ApptainerPolicy": {"images": ["*"], "allow_notebooks": False}})
    assert [rules.images for rules in load_policies(server)] == [("/shared",), ("*",)]
    assert forbids_notebooks(server) == "the policy of this server"


def test_json_is_read_as_well(folders: tuple[Path, Path]) -> None:
    (folders[0] / f"{CONFIG_NAME}.json").write_text(json.dumps({"ApptainerPolicy": {"isolation": "contain"}}))
    (rules,) = load_policies()
    assert rules.isolations == ("contain", "containall")


@pytest.mark.parametrize(
    ("lines", "flags"),
    [
        ([], ("*",)),
        (["ApptainerPolicy.images = ['/shared']"], ()),
        (["ApptainerPolicy.isolation = 'contain'"], ()),
        (["ApptainerPolicy.images = ['/shared']", "ApptainerPolicy.extra_flags = ['--no-privs']"], ("--no-privs",)),
        (["ApptainerPolicy.images = ['/shared']", "ApptainerPolicy.extra_flags = ['*']"], ("*",)),
    ],
    ids=["nothing limited", "images limited", "isolation limited", "some flags", "all flags, said aloud"],
)
def test_flags_go_round_no_limit_unless_it_is_said(
    folders: tuple[Path, Path], lines: list[str], flags: tuple[str, ...]
) -> None:
    write(folders[0], "ApptainerPolicy.allow_notebooks = True", *lines)
    (rules,) = load_policies()
    assert rules.extra_flags == flags


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("ApptainerPolicy.imags = ['/shared']", "imags"),
        ("ApptainerPolicy.images = 7", "images"),
        ("ApptainerPolicy.images = ['shared']", "shared"),
        ("ApptainerPolicy.images = ['kernels']", "anybody"),
        ("ApptainerPolicy.networks = ['bridge']", "networks"),
        ("ApptainerPolicy.isolation = 'full'", "isolation"),
    ],
    ids=lambda text: text.partition(" ")[0],
)
def test_a_policy_with_a_mistake_stops_everything(folders: tuple[Path, Path], line: str, word: str) -> None:
    write(folders[0], line)
    with pytest.raises(PolicyError, match=word):
        load_policies()


def test_a_policy_that_is_no_python_stops_everything(folders: tuple[Path, Path]) -> None:
    (folders[0] / f"{CONFIG_NAME}.py").write_text("c.ApptainerPolicy.images = [\n")
    with pytest.raises(PolicyError, match=r"(?s)jupyter_apptainer_config\.py.*never closed|was never closed"):
        load_policies()


@pytest.mark.user
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_policy_that_cannot_be_read_stops_everything(folders: tuple[Path, Path], what: str) -> None:
    write(folders[0], "ApptainerPolicy.images = ['/shared']")
    locked = folders[0] / f"{CONFIG_NAME}.py" if what == "file" else folders[0]
    mode = locked.stat().st_mode
    locked.chmod(0)
    try:
        with pytest.raises(PolicyError, match=str(folders[0])):
            load_policies()
    finally:
        locked.chmod(mode)


def test_machines_folders_are_fixed() -> None:
    assert policy_module.SYSTEM_FOLDERS == ("/etc/jupyter", "/usr/local/etc/jupyter")
    assert all(os.path.isabs(folder) for folder in policy_module.SYSTEM_FOLDERS)


def test_a_misspelled_setting_for_notebooks_is_refused() -> None:
    with pytest.raises(PolicyError, match="bindings"):
        load_notebook_policy(Config({"NotebookPolicy": {"bindings": ["/"]}}))
    with pytest.raises(PolicyError, match="binds"):
        load_notebook_policy(Config({"NotebookPolicy": {"binds": 7}}))


def test_defaults_for_notebooks_bring_nothing_from_outside() -> None:
    rules = build_notebook_rules(NotebookPolicy())
    assert rules.images == ("kernels",)
    assert (rules.binds, rules.inherit_env, rules.extra_flags, rules.overlays) == ((), (), (), ("tmpfs",))
    assert "*" not in rules.env
    assert not {"command", "extra_flags", "inherit_env"} & set(NotebookPolicy().fields)


@pytest.mark.parametrize("cls", [ApptainerPolicy, NotebookPolicy])
def test_each_trait_explains_itself(cls: type[ApptainerPolicy | NotebookPolicy]) -> None:
    for trait in cls.class_own_traits(config=True).values():
        text = " ".join(trait.help.split())
        assert text.endswith(".")
        assert "Default: " in text


# Root can write to every folder, and is an administrator.
@pytest.mark.user
@pytest.mark.parametrize(
    ("system", "own", "server", "expected"),
    [
        ([], [], {}, False),
        ([True], [], {}, True),
        ([True], [False], {}, False),
        ([], [True], {}, False),
        ([], [], {"show_other_users": True}, True),
        ([False], [], {"show_other_users": True}, False),
    ],
    ids=[
        "nobody",
        "administrator",
        "forbidden by the user",
        "by the user alone",
        "server",
        "server against the machine",
    ],
)
def test_other_users_are_named_where_an_administrator_allows_it(
    folders: tuple[Path, Path],
    system: list[bool],
    own: list[bool],
    server: dict[str, bool],
    expected: bool,
) -> None:
    for folder, values in zip(folders, (system, own), strict=True):
        if values:
            write(folder, *(f"ApptainerPolicy.show_other_users = {value}" for value in values))
    folders[0].chmod(0o555)
    assert shows_other_users(Config({"ApptainerPolicy": server}) if server else None) is expected
