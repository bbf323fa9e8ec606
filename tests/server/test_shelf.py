"""The list of tasks: read once where they are over, and never older than what is on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest

from jupyter_apptainer.places import Places
from jupyter_apptainer.server import shelf
from jupyter_apptainer.server.shelf import TaskShelf, to_json
from jupyter_apptainer.tasks.model import Task, TaskSpec
from jupyter_apptainer.tasks.store import clean_tasks, find_folder, load_task, save_task

SPEC = TaskSpec(kind="test", title="höre zu", work="nothing:at_all", args={})


@pytest.fixture
def tasks(places: Places) -> Iterator[list[Task]]:
    """The older one is over, the newer at work."""
    clean_tasks(places, older_than_s=0)
    made = [
        Task(id="00000001", spec=SPEC, state="done", created_at=1.0, ended_at=2.0),
        Task(id="00000002", spec=SPEC, state="running"),
    ]
    for task in made:
        find_folder(places, task.id).mkdir(parents=True, mode=0o700)
        save_task(places, task)
    yield made
    for task in made:
        shutil.rmtree(find_folder(places, task.id), ignore_errors=True)


def test_what_is_over_is_read_once_and_what_changes_is_seen(
    places: Places, tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def load(places: Places, task_id: str) -> Task | None:
        read.append(task_id)
        return load_task(places, task_id)

    monkeypatch.setattr(shelf, "load_task", load)
    own = TaskShelf(places)
    over, active = tasks
    assert json.loads(own.encode_all()) == [json.loads(json.dumps(to_json(each))) for each in (active, over)]
    own.encode_all()
    assert sorted(read) == [over.id, active.id, active.id]
    save_task(places, replace(over, state="cancelled"))
    assert [each["state"] for each in json.loads(own.encode_all())] == ["running", "cancelled"]
    save_task(places, replace(active, state="done", ended_at=4.0))
    assert [each["state"] for each in json.loads(own.encode_all())] == ["done", "cancelled"]
    clean_tasks(places, older_than_s=1e12, kept=1)
    assert [each["id"] for each in json.loads(own.encode_all())] == [active.id]
    clean_tasks(places, older_than_s=0)
    assert own.encode_all() == "[]"
