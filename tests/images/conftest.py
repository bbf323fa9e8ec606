"""A way to ask an image."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyter_apptainer.engine.command import Completed
from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.options import build_exec
from jupyter_apptainer.engine.runner import Runner

Ask = Callable[..., str]


@pytest.fixture
def ask(engine: EngineInfo) -> Ask:
    """Run a program in an image and return what it prints."""

    def run(image: Path, *argv: str) -> str:
        command = build_exec(engine, str(image), argv, build_engine_environment(os.environ), timeout_s=60)
        completed: Completed = Runner().run(command)
        return completed.stdout.strip()

    return run
