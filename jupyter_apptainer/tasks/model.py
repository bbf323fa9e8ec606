"""A task: what shall be done (`TaskSpec`), and what has become of it (`Task`). Both are JSON on disk and for programs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, NamedTuple

from ..errors import ApptainerError, TaskFailed, iter_error_classes
from ..instances.process import ProcessIdentity

State = Literal["queued", "running", "done", "failed", "needs-auth", "cancelled"]
ACTIVE: frozenset[State] = frozenset({"queued", "running"})
KEPT_PHASES = 200


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """What shall be done.

    kind: for people and filters: image-build, image-pull, …
    title: one line: "build lab.sif".
    work: the function that does it, as "package.module:function"; it is given `args` and a `Report`, and returns JSON.
    args: JSON; no secrets, for they are kept on disk and shown.
    target: what comes of it, a file or a name in a registry: only one task makes it at a time. Empty: there is no such thing.
    fingerprint: of what it is made from. A second task with the same target and fingerprint joins the first.
    cwd: where relative paths start from.
    """

    kind: str
    title: str
    work: str
    args: Mapping[str, Any]
    target: str = ""
    fingerprint: str = ""
    cwd: str = "/"


class Phase(NamedTuple):
    """One step of a work. started_at: seconds since 1970."""

    name: str
    started_at: float


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task as it is now.

    phases: what it did and does, in a few words each; the newest KEPT_PHASES of phase_count.
    done, total: how far the last phase is, in `unit`; None where nobody can tell.
    result: what the work returned. error: as `ApptainerError.to_json` has it.
    limit: with how many others it may run at once, None for any number. retry_of: the task that it repeats.
    made: half-finished files and folders, which whoever finds the task lost removes.
    """

    id: str
    spec: TaskSpec
    state: State = "queued"
    phases: Sequence[Phase] = ()
    phase_count: int = 0
    done: int | None = None
    total: int | None = None
    unit: Literal["bytes", "percent", "items"] = "bytes"
    created_at: float = field(default_factory=time.time)
    started_at: float | None = None
    ended_at: float | None = None
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    worker: ProcessIdentity | None = None
    limit: int | None = None
    retry_of: str = ""
    made: Sequence[str] = ()

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.state not in ACTIVE

    @property
    def phase(self) -> str:
        """What it does now, or did last."""
        return self.phases[-1].name if self.phases else ""

    @property
    def percent(self) -> float | None:
        """How far the phase is, from 0 to 100; None where nobody can tell."""
        if self.done is None or not self.total:
            return None
        return min(100.0, 100.0 * self.done / self.total)

    def to_json(self) -> dict[str, Any]:
        """For disk and programs: the spec's fields beside the task's own, and `percent`."""
        record = {name: getattr(self, name) for name in _PLAIN}
        made = {
            "phases": [phase._asdict() for phase in self.phases],
            "worker": self.worker.to_json() if self.worker else None,
            "phase": self.phase,
            "percent": self.percent,
        }
        return {**asdict(self.spec), **record, **made}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Task:
        """Read what `to_json` wrote. Raises KeyError, TypeError or ValueError for anything else."""
        spec = TaskSpec(**{each.name: record[each.name] for each in fields(TaskSpec)})
        worker = ProcessIdentity.from_json(record["worker"]) if record["worker"] else None
        phases = tuple(Phase(each["name"], each["started_at"]) for each in record["phases"])
        return cls(spec=spec, worker=worker, phases=phases, **{name: record[name] for name in _PLAIN})


# Fields that are JSON as they are.
_PLAIN = tuple(each.name for each in fields(Task) if each.name not in ("spec", "worker", "phases"))


def build_error(task: Task) -> ApptainerError:
    """Return the error that a task ended with, of the class that it had in the worker."""
    record = dict(task.error or {"code": TaskFailed.code, "message": f"the task {task.id} ended as {task.state}"})
    cls = next((each for each in iter_error_classes() if each.code == record["code"]), TaskFailed)
    return cls(
        str(record["message"]),
        hint=record.get("hint") or "",
        command=record.get("command"),
        returncode=record.get("returncode"),
        log_tail=record.get("log_tail") or (),
    )
