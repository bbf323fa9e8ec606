"""The bench on which the real engine is made to fail."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo, run_flags
from tests.engine.bench import Bench


@pytest.fixture
def bench(engine: EngineInfo, starter_image: Path, tmp_path: Path) -> Bench:
    env = build_engine_environment(os.environ) | {
        "APPTAINER_CONFIGDIR": str(tmp_path / "config"),
        "APPTAINER_CACHEDIR": str(tmp_path / "cache"),
        # A failed build leaves its temporary folders.
        "TMPDIR": str(tmp_path),
    }
    return Bench(engine, starter_image, tmp_path, run_flags(engine), env)
