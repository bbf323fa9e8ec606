"""The engine's configuration with a squashfuse that takes less memory: the engine's own in all else, and only where it can be used."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_apptainer.engine.companions import find_companion
from jupyter_apptainer.engine.fuse_programs import SCRIPTS, add_search_folder, find_config
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.places import Places


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("a = 1\n", "$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("a = 1\n# binary path = /no\n", "$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("a = 1\nbinary path = $PATH:/opt/x\n", "$PATH:/opt/x"),
        ("a = 1\n binary path=/opt/y:$PATH:/opt/x \n", "/opt/y:$PATH:/opt/x"),
    ],
    ids=["nothing", "a comment", "a search", "spaces"],
)
def test_a_folder_comes_first_and_all_else_stays(config: str, expected: str) -> None:
    found = add_search_folder(config, "/own/place")
    assert found is not None
    assert found.startswith("a = 1\n")
    set_lines = [line for line in found.splitlines() if line.lstrip().startswith("binary path")]
    assert set_lines == [f"binary path = /own/place:{expected}"]


@pytest.mark.parametrize(
    ("config", "folder"),
    [("binary path = /only/here\n", "/own/place"), ("", "/own:place"), ("", "/own$place")],
    ids=["the engine's helpers first", "colon", "dollar"],
)
def test_what_could_not_be_found_is_not_written(config: str, folder: str) -> None:
    assert add_search_folder(config, folder) is None


def test_the_configuration_is_made_once_and_its_program_is_the_engines(
    engine: EngineInfo, places: Places, tmp_path: Path
) -> None:
    # Kernels of other tests have made one in the cache of the session.
    engine, places = replace(engine, setuid=False), replace(places, cache=tmp_path)
    assert find_config(engine, places, is_dry=True) is None
    assert not (places.cache / "fuse").exists()
    config = find_config(engine, places)
    assert config is not None
    written = Path(config).stat().st_mtime_ns
    assert find_config(engine, places) == find_config(engine, places, is_dry=True) == config
    assert Path(config).stat().st_mtime_ns == written
    for name in SCRIPTS:
        program = find_companion(engine, name)
        assert program is not None
        asked = [
            subprocess.run(
                [path, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
            )
            for path in (program, Path(config).with_name(name))
        ]
        assert asked[0].stdout.splitlines()[:1] == asked[1].stdout.splitlines()[:1]
        assert name.removesuffix("_ll") in asked[0].stdout


def test_an_engine_that_takes_none_gets_none(engine: EngineInfo, places: Places, tmp_path: Path) -> None:
    assert find_config(replace(engine, setuid=True), places) is None
    assert find_config(replace(engine, config_file=str(tmp_path / "none")), places) is None
    assert find_config(replace(engine, flavour="singularity-ce"), places) is None
    # A folder in which nothing can be made.
    (tmp_path / "file").touch()
    assert find_config(replace(engine, setuid=False), replace(places, cache=tmp_path / "file")) is None
