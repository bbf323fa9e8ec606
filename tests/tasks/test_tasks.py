"""Tasks in processes of their own: followed, joined, cancelled, repeated, and lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_apptainer.config import ApptainerConfig
from jupyter_apptainer.errors import (
    RegistryAuthError,
    SpecError,
    TaskCancelled,
    TaskConflict,
    TaskFailed,
    TaskLost,
    TaskNotFound,
)
from jupyter_apptainer.instances.process import ProcessIdentity, iter_stats
from jupyter_apptainer.places import Places
from jupyter_apptainer.tasks.follow import follow_task, follow_task_async, wait_for_task, wait_for_task_async
from jupyter_apptainer.tasks.model import Task, TaskSpec
from jupyter_apptainer.tasks.start import retry_task, start_task
from jupyter_apptainer.tasks.stop import cancel_task, cancel_task_async
from jupyter_apptainer.tasks.store import (
    clean_old_tasks,
    clean_tasks,
    find_folder,
    get_task,
    iter_tasks,
    load_task,
    read_log,
    save_task,
)

# The same for every user.
pytestmark = pytest.mark.user

# Works, in the worker's own language. A named pipe is what they wait at, and what the tests hold.
_WORKS = """
import os, subprocess
from pathlib import Path
from jupyter_apptainer import errors
from jupyter_apptainer.engine.command import Command
from jupyter_apptainer.engine.runner import Runner

def speak(args, report):
    report.begin("first")
    report.write("one\\n")
    report.begin("second")
    report.count(30, 60, "items")
    report.write("zwölf\\n")
    report.count(60, 60, "items")
    return {"said": args["word"], "cwd": os.getcwd()}

def hold(args, report):
    made = Path(args["made"])
    made.write_text("half")
    try:
        report.begin("holding")
        open(args["pipe"]).close()
    except BaseException:
        made.unlink()
        raise
    return {}

def leave(args, report):
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    return hold(args, report)

def fail(args, report):
    report.begin("trying")
    raise eval(args["error"])

def weigh(args, report):
    # Its input comes when its session was told.
    script = "read line; nice; cat /proc/self/autogroup 2>/dev/null || true"
    command = Command(("sh", "-c", script), dict(os.environ), lambda completed: completed.stdout, "weigh", stdin="go\\n")
    return {"found": Runner().run(command)}

def once(args, report):
    path = Path(args["flag"])
    if path.exists():
        return {}
    path.touch()
    raise errors.RegistryAuthError("no password", hint="log in")
"""
Plan = Callable[..., TaskSpec]


@pytest.fixture(autouse=True)
def empty(places: Places) -> Iterator[None]:
    """Each test sees its own tasks only, and none is left running."""
    clean_tasks(places, older_than_s=0)
    yield
    for task in iter_tasks(places):
        cancel_task(places, task.id)
    clean_tasks(places, older_than_s=0)


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Plan one of the works above."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/works_for_tests.py").write_text(textwrap.dedent(_WORKS))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))

    def build(work: str, *, target: str = "", fingerprint: str = "", **args: object) -> TaskSpec:
        name = f"works_for_tests:{work}"
        return TaskSpec(
            kind="test",
            title=f"do {work}",
            work=name,
            args=args,
            target=target,
            fingerprint=fingerprint,
            cwd=str(tmp_path),
        )

    return build


class Gate:
    """Where a work waits until it is let go."""

    def __init__(self, folder: Path, name: str = "gate") -> None:
        self.pipe, self.made = folder / f"{name}.pipe", folder / f"{name}.made"
        os.mkfifo(self.pipe)

    @property
    def args(self) -> dict[str, str]:
        return {"pipe": str(self.pipe), "made": str(self.made)}

    def open(self) -> None:
        """Let it go; returns when it has left."""
        with self.pipe.open("w"):
            pass


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def wait_for_phase(places: Places, task_id: str, phase: str) -> Task:
    return next(update.task for update in follow_task(places, task_id) if update.task.phase == phase)


def test_task_is_followed_to_its_result(places: Places, plan: Plan, tmp_path: Path) -> None:
    task = start_task(places, plan("speak", word="tide")).task
    updates = list(follow_task(places, task.id))
    assert "".join(update.text for update in updates) == "one\nzwölf\n"
    last = updates[-1].task
    assert last == get_task(places, task.id[:6])
    assert (last.state, last.percent, [phase.name for phase in last.phases]) == ("done", 100, ["first", "second"])
    assert last.result == {"said": "tide", "cwd": str(tmp_path)}
    assert wait_for_task(places, task.id) == last.result
    assert asyncio.run(wait_for_task_async(places, task.id)) == last.result
    # Followed anew it is the same, from any place on.
    assert "".join(update.text for update in follow_task(places, task.id, offset=4)) == "zwölf\n"
    assert not last.worker or last.worker.wait_gone(30)


def test_state_is_private_and_comes_back_from_json(places: Places, plan: Plan) -> None:
    task = start_task(places, plan("speak", word="x"), environ={**os.environ, "SECRET_TOKEN": "hush"}).task
    wait_for_task(places, task.id)
    folder = find_folder(places, task.id)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "hush" not in path.read_text()
    ended = get_task(places, task.id)
    assert Task.from_json(json.loads(json.dumps(ended.to_json()))) == ended


def test_same_work_is_joined_and_another_refused(places: Places, plan: Plan, gate: Gate) -> None:
    same = plan("hold", target="/images/a.sif", fingerprint="1", **gate.args)
    with ThreadPoolExecutor(4) as pool:
        started = list(pool.map(lambda _: start_task(places, same), range(4)))
    assert len({each.task.id for each in started}) == 1
    assert sorted(each.is_joined for each in started) == [False, True, True, True]
    task = started[0].task
    with pytest.raises(TaskConflict, match=r"/images/a.sif is being made from something else: do hold") as caught:
        start_task(places, replace(same, fingerprint="2"))
    assert task.id in (caught.value.hint or "")
    assert retry_task(places, task.id).is_joined
    gate.open()
    assert wait_for_task(places, task.id) == {}
    assert not start_task(places, plan("speak", word="", target="/images/a.sif")).is_joined


def test_task_survives_the_one_who_started_it(places: Places, plan: Plan, gate: Gate) -> None:
    spec = plan("hold", **gate.args)
    code = (
        "import json, os, signal, sys\n"
        "from jupyter_apptainer.places import find_places\n"
        "from jupyter_apptainer.tasks.model import TaskSpec\n"
        "from jupyter_apptainer.tasks.start import start_task\n"
        "print(start_task(find_places(), TaskSpec(**json.loads(sys.argv[1]))).task.id, flush=True)\n"
        "os.killpg(0, signal.SIGKILL)\n"
    )
    starter = subprocess.run(
        [sys.executable, "-c", code, json.dumps(vars(spec))], capture_output=True, text=True, start_new_session=True
    )
    assert starter.returncode == -signal.SIGKILL
    task_id = starter.stdout.strip()
    assert wait_for_phase(places, task_id, "holding").state == "running"
    gate.open()
    assert wait_for_task(places, task_id) == {}


@pytest.mark.parametrize("way", ["plain", "async"])
def test_cancelled_task_removes_what_it_has_made(places: Places, plan: Plan, gate: Gate, way: str) -> None:
    task = start_task(places, plan("hold", **gate.args)).task
    wait_for_phase(places, task.id, "holding")
    assert gate.made.exists()
    ended = cancel_task(places, task.id) if way == "plain" else asyncio.run(cancel_while_following(places, task.id))
    assert ended.state == "cancelled"
    assert not gate.made.exists()
    assert task.worker
    assert not task.worker.is_alive()
    with pytest.raises(TaskCancelled, match="`do hold` was cancelled"):
        wait_for_task(places, task.id)
    assert cancel_task(places, task.id) == ended


async def cancel_while_following(places: Places, task_id: str) -> Task:
    async def follow() -> Task:
        return [update.task async for update in follow_task_async(places, task_id)][-1]

    follower = asyncio.create_task(follow())
    await cancel_task_async(places, task_id)
    return await follower


@pytest.mark.parametrize(
    ("error", "cls", "message"),
    [
        pytest.param("errors.SpecError('no', hint='yes')", SpecError, "no", id="ours"),
        pytest.param("FileNotFoundError(2, 'No such file', '/x')", TaskFailed, "do fail: /x No such file", id="system"),
        pytest.param("ZeroDivisionError('sea')", TaskFailed, "ended by a fault of ours", id="fault"),
    ],
)
def test_error_comes_back_as_what_it_was(
    places: Places, plan: Plan, error: str, cls: type[Exception], message: str
) -> None:
    task = start_task(places, plan("fail", error=error)).task
    with pytest.raises(cls, match=message) as caught:
        wait_for_task(places, task.id)
    assert type(caught.value) is cls
    log = read_log(places, task.id).text
    # Its last line is there when the end is known, and no traceback comes twice.
    assert log.count("ZeroDivisionError: sea\n") == ("fault" in message)
    assert getattr(caught.value, "hint", None) in (
        "yes",
        "",
        f"please report it with `jupyter apptainer tasks log {task.id}`",
    )


def test_work_that_does_not_exist_fails(places: Places) -> None:
    spec = TaskSpec(kind="test", title="nothing", work="jupyter_apptainer.errors:nothing", args={})
    with pytest.raises(TaskFailed):
        wait_for_task(places, start_task(places, spec).task.id)


def test_killed_task_is_lost_and_its_programs_are_ended(places: Places, plan: Plan, gate: Gate) -> None:
    task = start_task(places, plan("leave", **gate.args)).task
    wait_for_phase(places, task.id, "holding")
    assert task.worker
    (sleeper,) = [
        ProcessIdentity(process.pid, process.start_ticks)
        for process in iter_stats()
        if process.comm == "sleep" and process.ppid == task.worker.pid
    ]
    follower = follow_task(places, task.id)
    next(follower)
    task.worker.send_signal(signal.SIGKILL)
    assert list(follower)[-1].task.state == "failed"
    with pytest.raises(TaskLost, match="the process of the task `do leave` is gone"):
        wait_for_task(places, task.id)
    assert sleeper.is_alive()
    # The next start ends what is left, but not what other tasks are doing.
    other = Gate(gate.made.parent, "other")
    first = start_task(places, plan("hold", **other.args)).task
    wait_for_task(places, start_task(places, plan("speak", word="")).task.id)
    assert sleeper.wait_gone(30)
    assert get_task(places, first.id).state == "running"


def test_tasks_give_way_and_so_does_what_they_start(places: Places, plan: Plan) -> None:
    found = [
        wait_for_task(places, start_task(places, plan("weigh"), settings=settings).task.id)["found"].split()
        for settings in (ApptainerConfig(task_niceness=7), ApptainerConfig(task_niceness=0))
    ]
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert [int(words[0]) for words in found] == [max(7, own), own]
    # A kernel that shares out its processors by sessions says how much this one gets.
    assert [words[-1] for words in found if len(words) > 1] in ([], [str(max(7, own)), str(own)])


def test_tasks_wait_in_line(places: Places, plan: Plan, tmp_path: Path) -> None:
    gates = [Gate(tmp_path, f"gate{number}") for number in range(3)]
    tasks = [start_task(places, plan("hold", **gate.args), limit=1).task for gate in gates]
    wait_for_phase(places, tasks[0].id, "holding")
    for task in tasks[1:]:
        assert wait_for_phase(places, task.id, "Waiting for other tasks to end").state == "queued"
    cancel_task(places, tasks[1].id)
    assert get_task(places, tasks[1].id).state == "cancelled"
    # Who has no limit does not wait.
    assert wait_for_task(places, start_task(places, plan("speak", word="")).task.id)
    gates[0].open()
    wait_for_phase(places, tasks[2].id, "holding")
    gates[2].open()
    assert wait_for_task(places, tasks[2].id) == {}


def test_task_that_needs_a_password_is_repeated(places: Places, plan: Plan, tmp_path: Path) -> None:
    task = start_task(places, plan("once", flag=str(tmp_path / "flag"))).task
    with pytest.raises(RegistryAuthError, match="no password"):
        wait_for_task(places, task.id)
    assert get_task(places, task.id).state == "needs-auth"
    again = retry_task(places, task.id).task
    assert (again.retry_of, again.spec) == (task.id, task.spec)
    assert wait_for_task(places, again.id) == {}


def test_old_tasks_are_forgotten_and_active_ones_kept(places: Places, plan: Plan, gate: Gate) -> None:
    active = start_task(places, plan("hold", **gate.args)).task
    ended = [start_task(places, plan("speak", word=str(number))).task for number in range(3)]
    for task in ended:
        wait_for_task(places, task.id)
    assert clean_tasks(places) == []
    old = get_task(places, ended[2].id)
    save_task(places, replace(old, ended_at=(old.ended_at or 0) - 15 * 86400))
    assert [task.id for task in clean_tasks(places)] == [ended[2].id]
    assert [task.id for task in clean_tasks(places, kept=1)] == [ended[0].id]
    clean_tasks(places, older_than_s=0)
    assert [task.id for task in iter_tasks(places)] == [active.id]


def test_settings_say_how_many_are_kept(places: Places, plan: Plan) -> None:
    settings = ApptainerConfig(task_kept_count=1)
    ids = []
    for number in range(3):
        ids.append(start_task(places, plan("speak", word=str(number)), settings=settings).task.id)
        wait_for_task(places, ids[-1])
    # Each start removes what is too old.
    assert [task.id for task in iter_tasks(places)] == ids[:0:-1]
    assert clean_old_tasks(places, ApptainerConfig(task_kept_days=0)) != []
    assert list(iter_tasks(places)) == []


def test_log_is_read_in_parts_without_cutting_characters(places: Places, plan: Plan) -> None:
    task = start_task(places, plan("speak", word="")).task
    wait_for_task(places, task.id)
    (find_folder(places, task.id) / "log").write_text("aé€😀b")
    offset, texts = 0, []
    while (part := read_log(places, task.id, offset, limit=4)).text:
        offset = part.next_offset
        texts.append(part.text)
    assert "".join(texts) == "aé€😀b"
    assert read_log(places, task.id, 10_000).text == ""
    assert read_log(places, task.id, -5).text == "aé€😀b"


@pytest.mark.parametrize("name", ["", "../../x", "0123456", "0123456789", "ABCDEF01", "0123456/", "start.lock", "a\0b"])
def test_what_is_no_id_finds_nothing(places: Places, name: str) -> None:
    with pytest.raises(TaskNotFound):
        get_task(places, name)
    with pytest.raises(TaskNotFound):
        read_log(places, name)


def test_damaged_state_is_no_task(places: Places, plan: Plan) -> None:
    task = start_task(places, plan("speak", word="")).task
    wait_for_task(places, task.id)
    state = find_folder(places, task.id) / "task.json"
    state.write_text(state.read_text()[:50])
    assert load_task(places, task.id) is None
    assert list(iter_tasks(places)) == []
    with pytest.raises(TaskNotFound):
        get_task(places, task.id)
