"""The process of one task: `python -m jupyter_apptainer.tasks.worker ID PLACES NICENESS`. Waits its turn, does the work, writes its end.

It leaves the process that started it at once. TERM and INT cancel the work: the engine is stopped by its ladder, and what was
made so far is removed.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import time
import traceback
from contextlib import ExitStack
from dataclasses import replace
from types import FrameType

from ..engine.priority import give_way
from ..errors import ApptainerError, RegistryAuthError, TaskCancelled, TaskFailed
from ..instances.process import ProcessIdentity
from ..instances.watch import watch_exit
from ..places import Places
from .model import Task
from .report import Report, Work
from .store import iter_tasks, load_task

# Only where the kernel has no pidfds: how long to wait before looking again.
_BLIND_WAIT_MS = 500


def main(task_id: str, places: Places, niceness: int) -> int:
    """Leave the parent, and run the task."""
    if os.fork():
        # The child writes its name, and with that closes the pipe that the starter waits at.
        os._exit(0)
    task = load_task(places, task_id)
    if task is None:
        return 1
    _take_signals()
    give_way(niceness)
    report = Report(places, replace(task, worker=ProcessIdentity.current()))
    report.change()
    os.dup2(2, 1)
    return run(report)


def run(report: Report) -> int:
    """Do the work, and write how it ended."""
    end: dict[str, object] = {"state": "failed", "error": _describe_fault(report.task).to_json()}
    try:
        _wait_turn(report)
        report.change(state="running", started_at=time.time())
        os.chdir(report.task.spec.cwd)
        work = load_work(report.task.spec.work)
        end = {"state": "done", "result": work(dict(report.task.spec.args), report), "error": None}
    except KeyboardInterrupt:
        end = {"state": "cancelled", "error": TaskCancelled(f"`{report.task.spec.title}` was cancelled").to_json()}
    except RegistryAuthError as error:
        end = {"state": "needs-auth", "error": error.to_json()}
    except ApptainerError as error:
        end = {"state": "failed", "error": error.to_json()}
    except OSError as error:
        message = f"{report.task.spec.title}: {error.filename or ''} {error.strerror or error}"
        end = {"state": "failed", "error": TaskFailed(message).to_json()}
    except Exception:  # noqa: BLE001  # a fault of ours ends this process like anything else that ends a work
        # Before the end is told: who hears of it finds the whole traceback in the log.
        traceback.print_exc()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        report.change(**end, ended_at=time.time())
    return 0 if end["state"] == "done" else 1


def load_work(name: str) -> Work:
    """Return the function "package.module:function"."""
    module, _, function = name.partition(":")
    found: Work = getattr(importlib.import_module(module), function)
    return found


def _describe_fault(task: Task) -> TaskFailed:
    return TaskFailed(
        f"`{task.spec.title}` ended by a fault of ours",
        hint=f"please report it with `jupyter apptainer tasks log {task.id}`",
    )


def _take_signals() -> None:
    """The first of the two signals interrupts; a second one must not disturb what the first set going."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            # A function and not SIG_IGN, which programs that are started from here would inherit.
            signal.signal(number, lambda *_: None)
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt)


def _wait_turn(report: Report) -> None:
    """Wait until fewer than `limit` tasks that came before this one are active."""
    limit = report.task.limit
    while limit is not None:
        ahead = _list_ahead(report.places, report.task)
        if len(ahead) < limit:
            return
        report.begin("Waiting for other tasks to end")
        with ExitStack() as stack:
            poller = select.poll()
            descriptors = [stack.enter_context(watch_exit(task.worker.pid)) for task in ahead if task.worker]
            for descriptor in descriptors:
                if descriptor >= 0:
                    poller.register(descriptor, select.POLLIN)
            # Looked at again, now that an end cannot be missed.
            if len(_list_ahead(report.places, report.task)) == len(ahead):
                poller.poll(_BLIND_WAIT_MS if -1 in descriptors or not descriptors else None)


def _list_ahead(places: Places, mine: Task) -> list[Task]:
    rank = (mine.created_at, mine.id)
    return [task for task in iter_tasks(places) if not task.is_over and (task.created_at, task.id) < rank]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Places.from_json(json.loads(sys.argv[2])), int(sys.argv[3])))
