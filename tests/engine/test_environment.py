"""The environment of the engine: nothing in somebody's profile bends our commands."""

from __future__ import annotations

import json
import os

import pytest

from jupyter_apptainer.engine.environment import build_engine_environment, is_bending, is_variable_name
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.options import build_exec
from jupyter_apptainer.engine.runner import Runner


@pytest.mark.parametrize("prefix", ["APPTAINER", "SINGULARITY"])
@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        pytest.param("BIND", True, id="bind"),
        pytest.param("BINDPATH", True, id="bindpath"),
        pytest.param("NV", True, id="nv"),
        pytest.param("CONTAINALL", True, id="containall"),
        pytest.param("NAME", True, id="inside-a-container"),
        pytest.param("DEBUG", True, id="debug"),
        pytest.param("CACHEDIR", False, id="cachedir"),
        pytest.param("CONFIGDIR", False, id="configdir"),
        pytest.param("TMPDIR", False, id="tmpdir"),
        pytest.param("DOCKER_USERNAME", False, id="docker-username"),
        pytest.param("DOCKER_PASSWORD", False, id="docker-password"),
    ],
)
def test_only_variables_that_say_where_things_lie_are_kept(prefix: str, rest: str, expected: bool) -> None:
    name = f"{prefix}_{rest}"
    assert is_bending(name) is expected
    assert (name in build_engine_environment({name: "x"})) is not expected


@pytest.mark.parametrize("name", ["APPTAINERENV_X", "SINGULARITYENV_X", "APPTAINERENV_LD_PRELOAD"])
def test_values_for_other_containers_are_removed(name: str) -> None:
    assert is_bending(name)


@pytest.mark.parametrize("name", ["APPTAINERISH", "MY_APPTAINER_BIND", "PATH", "HOME", "apptainer_bind"])
def test_other_names_stay(name: str) -> None:
    assert build_engine_environment({name: "x"})[name] == "x"


def test_messages_are_english() -> None:
    assert build_engine_environment({"LC_ALL": "de_DE.UTF-8"})["LC_ALL"] == "C"


@pytest.mark.parametrize("name", ["PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LD_PRELOAD"])
def test_settings_of_ours_are_not_for_the_engines_helpers(name: str) -> None:
    assert name not in build_engine_environment({name: "x"})


def test_values_for_the_container_get_the_prefix_and_win() -> None:
    environ = {"APPTAINERENV_A": "profile"}
    env = build_engine_environment(environ, {"A": "ours", "LD_PRELOAD": "y"})
    assert env["APPTAINERENV_A"] == "ours"
    assert env["APPTAINERENV_LD_PRELOAD"] == "y"
    assert "A" not in env
    assert environ == {"APPTAINERENV_A": "profile"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("A", True), ("_a1", True), ("1A", False), ("A-B", False), ("", False), ("A B", False), ("A\n", False)],
)
def test_names_of_variables(name: str, expected: bool) -> None:
    assert is_variable_name(name) is expected


def test_odd_values_arrive_unchanged_and_a_profile_does_not_bend(
    engine: EngineInfo, starter_image: os.PathLike[str]
) -> None:
    value = "a,b 'c' \"d\" $(id) `id` ${HOME} \\ ü\nline"
    env = build_engine_environment(
        {**os.environ, "APPTAINER_BIND": "/nowhere-at-all", "APPTAINERENV_PROFILE": "1"}, {"ODD": value}
    )
    program = "import json, os; print(json.dumps([os.environ.get('ODD'), os.environ.get('PROFILE')]))"
    command = build_exec(engine, str(starter_image), ["python3", "-c", program], env, timeout_s=120)
    assert json.loads(Runner().run(command).stdout) == [value, None]
