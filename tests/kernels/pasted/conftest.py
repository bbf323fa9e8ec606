"""The flags of the real engine, and a reader of scripts with an image and a folder that exist."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.flags import build_help
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.runner import Runner
from jupyter_apptainer.kernels.pasted.convert import FlagTables, PastedKernel, read_batch_script, read_command

ReadPasted = Callable[..., PastedKernel]


@pytest.fixture(scope="session")
def flag_tables(engine: EngineInfo) -> FlagTables:
    env = build_engine_environment(os.environ)
    commands = [("exec",), ("run",), ("shell",), ("instance", "start")]
    return FlagTables(*(Runner().run(build_help(engine, words, env)) for words in commands))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an image (a sandbox as far as the host can tell), `img`, and a folder `data`."""
    (tmp_path / "img/.singularity.d").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    return tmp_path


@pytest.fixture
def read(flag_tables: FlagTables, folder: Path) -> ReadPasted:
    """Read a pasted text in `folder`, with few variables set."""

    def read(text: str, *, is_script: bool = False, environ: Mapping[str, str] | None = None) -> PastedKernel:
        variables = {"HOME": "/home/ada", "USER": "ada", **(environ or {})}
        function = read_batch_script if is_script else read_command
        return function(text, flag_tables, variables, str(folder))

    return read
