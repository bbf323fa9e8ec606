"""`jupyter apptainer tasks …` beside builds and pulls that go on without their terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.output import open_pty
from jupyter_apptainer.places import Places
from jupyter_apptainer.tasks.follow import follow_task, wait_for_task
from jupyter_apptainer.tasks.stop import cancel_task
from jupyter_apptainer.tasks.store import clean_tasks, get_task, iter_tasks
from tests.cli.conftest import PROGRAM, run

pytestmark = pytest.mark.user


@dataclass(frozen=True)
class Build:
    """A build that waits for its reader: words for the command line, and the image."""

    words: tuple[str, ...]
    image: Path
    pipe: Path

    def release(self) -> None:
        """Let it go on; returns when it does."""
        with self.pipe.open("w"):
            pass


@pytest.fixture
def build(engine: EngineInfo, places: Places, tmp_path: Path) -> Iterator[Build]:
    pipe, definition, image = tmp_path / "pipe", tmp_path / "a.def", tmp_path / "out/a.sif"
    os.mkfifo(pipe)
    image.parent.mkdir()
    definition.write_text(f"Bootstrap: scratch\n\n%setup\n    echo '== Waiting' >&2\n    cat {pipe}\n")
    clean_tasks(places, older_than_s=0)
    yield Build(("image", "build", str(image), "--def", str(definition)), image, pipe)
    for task in iter_tasks(places):
        cancel_task(places, task.id)
    clean_tasks(places, older_than_s=0)


def test_detached_build_is_found_joined_and_refused_to_others(build: Build, places: Places, tmp_path: Path) -> None:
    task_id = run(*build.words, "--detach").stdout.strip()
    assert json.loads(run("tasks", "--json").stdout)[0]["id"] == task_id
    follower = subprocess.Popen([PROGRAM, *build.words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert follower.stderr is not None
    assert follower.stderr.readline() == f"It is being done already: following the task {task_id}.\n"
    assert follower.stderr.readline() == "Running %setup\n"
    other = tmp_path / "other.def"
    other.write_text("Bootstrap: scratch\n")
    refused = run("image", "build", build.image, "--def", other)
    assert refused.returncode == 1
    assert f"{build.image} is being made from something else: build a.sif" in refused.stderr
    assert re.search(rf"{task_id}  running .* build a.sif  Waiting", run("tasks", "list").stdout)
    build.release()
    out, _ = follower.communicate(timeout=60)
    assert out == f"{build.image}\n"
    assert "Build complete" in run("tasks", "log", task_id[:5], "--follow").stdout
    shown = run("tasks", "show", task_id).stdout
    assert "state        done" in shown
    assert "phase        Waiting" in shown
    assert run("tasks", "clean").stderr == "nothing to forget\n"
    assert run("tasks", "clean", "--all").stdout == f"{task_id} build a.sif\n"
    assert run("tasks").stderr == "no tasks\n"
    assert run("tasks", "show", task_id).returncode == 1


def test_cancelled_build_is_repeated(build: Build, places: Places) -> None:
    task_id = run(*build.words, "--detach").stdout.strip()
    assert run("tasks", "cancel", task_id).stdout == f"{task_id} cancelled\n"
    assert not list(build.image.parent.iterdir())
    again = run("tasks", "retry", task_id, "--detach").stdout.strip()
    assert get_task(places, again).retry_of == task_id
    build.release()
    assert wait_for_task(places, again)["path"] == str(build.image)
    assert build.image.exists()


def test_what_a_killed_build_has_left_is_removed(build: Build, places: Places) -> None:
    task_id = run(*build.words, "--detach").stdout.strip()
    task = next(update.task for update in follow_task(places, task_id) if update.task.phase == "Waiting")
    assert task.worker
    task.worker.send_signal(signal.SIGKILL)
    assert task.worker.wait_gone(30)
    assert any(Path(path).exists() for path in task.made)
    assert f"half-made by a task that was killed: {task.spec.title}" in run("image", "clean", "--dry-run").stdout
    assert run("image", "clean").returncode == 0
    assert not any(Path(path).exists() for path in task.made)
    assert run("image", "clean").stderr == "nothing to remove\n"
    assert "is gone" in run("tasks", "show", task_id).stdout


@pytest.mark.parametrize("is_joined", [False, True], ids=["own", "joined"])
def test_interrupt_cancels_ones_own_task_only(build: Build, places: Places, is_joined: bool) -> None:
    if is_joined:
        run(*build.words, "--detach")
    leader, follower = open_pty()
    process = subprocess.Popen(
        [PROGRAM, *build.words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=follower, text=True
    )
    os.close(follower)
    said = b""
    while b"Waiting" not in said:
        said += os.read(leader, 4096)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    os.close(leader)
    assert process.returncode == 130
    assert "✓" in said.decode()
    (task,) = iter_tasks(places)
    assert task.state == ("running" if is_joined else "cancelled")
    assert bool(list(build.image.parent.iterdir())) is False
