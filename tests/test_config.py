"""Settings: where they are read from, who wins, and that each explains itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from traitlets import TraitError

from jupyter_apptainer.config import CONFIG_NAME, ApptainerConfig, load_config

TRAITS = ApptainerConfig.class_own_traits(config=True)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The user's folder and the machine's."""
    user, site = tmp_path / "user", tmp_path / "site"
    user.mkdir()
    site.mkdir()
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(user))
    monkeypatch.delenv("JUPYTER_CONFIG_PATH", raising=False)
    monkeypatch.setattr("jupyter_core.paths.SYSTEM_CONFIG_PATH", [str(site)])
    return user, site


def write_py(folder: Path, **values: object) -> None:
    lines = [f"c.ApptainerConfig.{name} = {value!r}\n" for name, value in values.items()]
    (folder / f"{CONFIG_NAME}.py").write_text("".join(lines))


def write_json(folder: Path, **values: object) -> None:
    (folder / f"{CONFIG_NAME}.json").write_text(json.dumps({"ApptainerConfig": values}))


def load() -> ApptainerConfig:
    return ApptainerConfig(config=load_config())


def test_without_files_defaults_hold(folders: tuple[Path, Path]) -> None:
    settings = load()
    assert {name: getattr(settings, name) for name in TRAITS} == {
        name: trait.default() for name, trait in TRAITS.items()
    }


@pytest.mark.parametrize("write", [write_py, write_json])
def test_both_kinds_of_file_are_read(folders: tuple[Path, Path], write: object) -> None:
    assert callable(write)
    write(folders[1], engine_path="/opt/a", start_timeout_s=5.0)
    assert (load().engine_path, load().start_timeout_s) == ("/opt/a", 5.0)


def test_the_users_own_file_wins_value_by_value(folders: tuple[Path, Path]) -> None:
    user, site = folders
    write_py(site, engine_path="/site", transport="tcp")
    write_py(user, engine_path="/user")
    assert (load().engine_path, load().transport) == ("/user", "tcp")


def test_jupyter_config_path_wins_as_it_does_for_jupyter(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_py(folders[0], engine_path="/user")
    (tmp_path / "first").mkdir()
    write_py(tmp_path / "first", engine_path="/first")
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(tmp_path / "first"))
    assert load().engine_path == "/first"


def test_the_users_json_wins_over_a_py_further_down(folders: tuple[Path, Path]) -> None:
    user, site = folders
    write_py(site, engine_path="/site")
    write_json(user, engine_path="/user")
    assert load().engine_path == "/user"


@pytest.mark.parametrize(
    "wrong",
    [{"transport": "udp"}, {"start_timeout_s": "long"}, {"read_ahead": "maybe"}, {"engine_path": 7}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_wrong_value_names_the_setting(folders: tuple[Path, Path], wrong: dict[str, object]) -> None:
    write_py(folders[0], **wrong)
    with pytest.raises(TraitError, match=next(iter(wrong))):
        load()


def test_a_file_with_a_mistake_is_not_passed_over(folders: tuple[Path, Path]) -> None:
    (folders[0] / f"{CONFIG_NAME}.py").write_text("c.ApptainerConfig.engine_path = \n")
    with pytest.raises(SyntaxError):
        load()


@pytest.mark.parametrize("name", sorted(TRAITS))
def test_each_setting_explains_itself(name: str) -> None:
    text = " ".join(TRAITS[name].help.split())
    assert text.endswith(".")
    assert "default" in text.lower(), "the default is said"
    assert len(text) > 40


def test_the_example_of_the_module_works(folders: tuple[Path, Path]) -> None:
    from jupyter_apptainer import config

    (line,) = [line for line in (config.__doc__ or "").splitlines() if line.startswith("c.")]
    (folders[0] / f"{CONFIG_NAME}.py").write_text(line + "\n")
    assert load().engine_path == "/opt/apptainer/bin/apptainer"
