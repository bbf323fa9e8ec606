"""What a work tells, and when it is on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_apptainer.places import Places
from jupyter_apptainer.tasks import report as report_module
from jupyter_apptainer.tasks.model import Task, TaskSpec
from jupyter_apptainer.tasks.report import Report
from jupyter_apptainer.tasks.store import find_folder, save_task


def test_a_count_that_came_too_soon_and_stands_still_is_told(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = replace(places, data=tmp_path)
    task = Task(id="0123abcd", spec=TaskSpec(kind="test", title="test", work="a:b", args={}))
    find_folder(own, task.id).mkdir(parents=True)
    saved: list[int | None] = []

    def save(where: Places, what: Task) -> None:
        save_task(where, what)
        saved.append(what.done)

    monkeypatch.setattr(report_module, "save_task", save)
    report = Report(own, task)
    monkeypatch.setattr(report_module, "_EVERY_S", 3600.0)
    report.begin("Downloading")
    report.count(400, 1000)
    assert saved == [None]
    monkeypatch.setattr(report_module, "_EVERY_S", 0.0)
    report.count(400, 1000)
    report.count(400, 1000)
    assert saved == [None, 400]
