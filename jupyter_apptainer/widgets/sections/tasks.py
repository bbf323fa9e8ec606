"""Builds, pulls and other long work, whoever has started it: how far it is, and what it says."""

from __future__ import annotations

from datetime import datetime

from ...tasks.model import Task
from ...tasks.store import iter_tasks
from ..context import PanelContext
from ..front.model import Action, Bar, Row, Section

_SHOWN = 30
_NO_RETRY = "it still runs"


def load_tasks(context: PanelContext) -> Section:
    """List them, newest first."""
    tasks = list(iter_tasks(context.places))
    return Section(
        name="tasks",
        title="Tasks",
        caption="Long work on this host; it goes on without this panel",
        headings=("Task", "State", "Phase", "Begun", "Id"),
        rows=tuple(_build_row(context, task) for task in tasks[:_SHOWN]),
        bars=tuple(_build_bar(task) for task in tasks if not task.is_over),
        notes=(f"{len(tasks) - _SHOWN} older ones: `jupyter apptainer tasks list`",) if len(tasks) > _SHOWN else (),
        empty="No task yet: pull or build an image.",
    )


def _build_row(context: PanelContext, task: Task) -> Row:
    error = task.error or {}
    return Row(
        key=task.id,
        cells=(
            task.spec.title,
            task.state,
            _describe_phase(task) if not task.is_over else str(error.get("message") or "-"),
            datetime.fromtimestamp(task.created_at).strftime("%Y-%m-%d %H:%M:%S"),
            task.id,
        ),
        actions=(
            Action(label="Log", words=("tasks", "log", task.id), is_reading=True),
            Action(
                label="Cancel",
                words=("tasks", "cancel", task.id),
                reason="it is over" if task.is_over else "",
                question=f"Cancel `{task.spec.title}`? What it has made so far is removed.",
            ),
            Action(
                label="Repeat",
                words=("tasks", "retry", "--detach", task.id),
                reason=context.obstacle or ("" if task.is_over else _NO_RETRY),
            ),
        ),
        facts=(
            ("makes", task.spec.target or "-"),
            *((name, str(value)) for name, value in (task.result or {}).items()),
            *(((("hint", str(error["hint"])),)) if error.get("hint") else ()),
        ),
    )


def _build_bar(task: Task) -> Bar:
    percent = task.percent
    return Bar(
        label=task.spec.title,
        fraction=None if percent is None else percent / 100,
        text=_describe_phase(task) or task.state,
    )


def _describe_phase(task: Task) -> str:
    return task.phase + (f" ({task.percent:.0f} %)" if task.percent is not None else "")
