"""The engine for scripts, both kinds, with the real thing."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

import jupyter_apptainer
from jupyter_apptainer import AsyncEngine, ContainerSpec, Engine
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.options import Bind, ContainerOptions
from jupyter_apptainer.errors import CommandError, ImageNotFound, InstanceExists, InstanceNotFound


def test_public_names_are_loaded_at_first_use() -> None:
    assert ContainerSpec(image="x.sif").nv == "auto"
    with pytest.raises(AttributeError, match="nosuch"):
        jupyter_apptainer.nosuch  # noqa: B018


def test_exec_gives_output_and_passes_variables_unchanged(
    engine: EngineInfo, starter_image: Path, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("here")
    texts: list[str] = []
    completed = Engine.find().exec(
        str(starter_image),
        ["python", "-c", "import os; print(os.environ['ODD'], open('/data/f').read())"],
        options=ContainerOptions(binds=(Bind(str(tmp_path), "/data", "ro"),)),
        env={"ODD": "$(id), 'x'"},
        on_text=lambda stream, text: texts.append(text),
    )
    assert completed.stdout == "$(id), 'x' here\n"
    assert "".join(texts) == completed.stdout


def test_failures_are_explained(engine: EngineInfo, starter_image: Path) -> None:
    found = Engine.find()
    with pytest.raises(ImageNotFound, match="nosuch"):
        found.exec("/nosuch.sif", ["true"])
    with pytest.raises(CommandError) as caught:
        found.exec(str(starter_image), ["sh", "-c", "echo why >&2; exit 3"])
    assert caught.value.returncode == 3
    assert "why" in caught.value.log_tail


def test_instances_from_start_to_stop(engine: EngineInfo, starter_image: Path) -> None:
    found = Engine.find()
    name = f"jpa-test-api-{os.getpid()}"
    found.start_instance(str(starter_image), name)
    try:
        assert name in [row.name for row in found.list_instances()]
        with pytest.raises(InstanceExists):
            found.start_instance(str(starter_image), name)
        assert found.exec(f"instance://{name}", ["echo", "in"]).stdout == "in\n"
    finally:
        found.stop_instance(name)
    assert name not in [row.name for row in found.list_instances()]
    with pytest.raises(InstanceNotFound):
        found.stop_instance(name)


def test_both_kinds_offer_the_same() -> None:
    assert {n for n in dir(Engine) if not n.startswith("_")} == {n for n in dir(AsyncEngine) if not n.startswith("_")}


def test_async_commands_run_side_by_side(engine: EngineInfo, starter_image: Path) -> None:
    async def main() -> list[str]:
        found = AsyncEngine.find()
        runs = [found.exec(str(starter_image), ["echo", str(number)]) for number in range(4)]
        return [completed.stdout for completed in await asyncio.gather(*runs)]

    assert asyncio.run(main()) == ["0\n", "1\n", "2\n", "3\n"]
