"""The engine's own flags, read from its help."""

from __future__ import annotations

import os

import pytest

from jupyter_apptainer.engine.command import Completed
from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.flags import Flag, FlagTable, build_help, parse_help
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.runner import Runner
from jupyter_apptainer.errors import EngineOutputError


@pytest.fixture(scope="module", params=[("exec",), ("instance", "start")], ids=" ".join)
def table(engine: EngineInfo, request: pytest.FixtureRequest) -> FlagTable:
    return Runner().run(build_help(engine, request.param, build_engine_environment(os.environ)))


@pytest.mark.parametrize(
    "flag",
    [
        Flag("nv", "", False),
        Flag("rocm", "", False),
        Flag("bind", "B", True),
        Flag("mount", "", True),
        Flag("overlay", "o", True),
        Flag("env", "", True),
        Flag("cleanenv", "e", False),
        Flag("home", "H", True),
        Flag("writable-tmpfs", "", False),
        Flag("network", "", True),
    ],
    ids=lambda flag: flag.name,
)
def test_flag_is_found_by_name_and_letter(table: FlagTable, flag: Flag) -> None:
    assert table.find(flag.name) == flag
    if flag.letter:
        assert table.find_letter(flag.letter) == flag


def test_nearest_flag_is_suggested(table: FlagTable) -> None:
    assert [table.find_near(name) for name in ("nvv", "bnd", "Writable_Tmpfs", "qqq")] == [
        "nv",
        "bind",
        "writable-tmpfs",
        None,
    ]


def test_older_name_of_a_flag_is_known(engine: EngineInfo) -> None:
    table = Runner().run(build_help(engine, ("exec",), build_engine_environment(os.environ)))
    assert table.find("pwd") == Flag("pwd", "", True)


def test_help_without_flags_is_reported() -> None:
    with pytest.raises(EngineOutputError, match="lists no flags"):
        parse_help(Completed(("apptainer", "help", "exec"), 0, "Usage:\n  apptainer exec\n", ""))
