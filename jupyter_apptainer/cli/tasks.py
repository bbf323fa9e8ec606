"""`jupyter apptainer tasks …`: builds, pulls and other long work on this host, whoever has started it."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import datetime
from typing import Any

from ..config import ApptainerConfig, load_config
from ..places import find_places
from ..tasks.follow import follow_task
from ..tasks.model import Task
from ..tasks.start import retry_task
from ..tasks.stop import cancel_task
from ..tasks.store import clean_old_tasks, clean_tasks, get_task, iter_tasks, read_log
from .output import make_printable, print_json, print_note, print_table
from .task_view import show_task
from .verbs import add_verb

_ID = "its id, or the beginning of it"


def add_parser(subparsers: Any) -> None:
    """Add `tasks` and its verbs."""
    parser = subparsers.add_parser(
        "tasks",
        help="builds, pulls and other long work on this host: list, follow, cancel, repeat",
        description="Long work on this host. It goes on when its terminal, notebook or server is gone.",
        epilog="examples:\n  jupyter apptainer tasks\n  jupyter apptainer tasks log 1f3c9a02 --follow",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(func=_list)
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    commands = parser.add_subparsers(metavar="COMMAND")
    listing = add_verb(commands, "tasks", "list", "tasks of this host, newest first", "list", "list --json")
    listing.set_defaults(func=_list)
    show = add_verb(commands, "tasks", "show", "one task: what it does, how far it is, how it ended", "show 1f3c9a02")
    show.set_defaults(func=_show)
    for command in (listing, show):
        command.add_argument("--json", action="store_true", help="print JSON")
    log = add_verb(commands, "tasks", "log", "all that a task has printed", "log 1f3c9a02 --follow")
    log.add_argument("-f", "--follow", action="store_true", help="go on until the task is over")
    log.set_defaults(func=_log)
    cancel = add_verb(
        commands, "tasks", "cancel", "stop tasks; what they have made so far is removed", "cancel 1f3c9a02"
    )
    cancel.set_defaults(func=_cancel)
    retry = add_verb(
        commands, "tasks", "retry", "do again what a task did, with its files as they are now", "retry 1f3c"
    )
    retry.add_argument("--detach", action="store_true", help="only print the new task's id")
    retry.set_defaults(func=_retry)
    for command in (show, log, retry):
        command.add_argument("id", metavar="ID", help=_ID)
    cancel.add_argument("ids", metavar="ID", nargs="+", help=_ID)
    clean = add_verb(
        commands,
        "tasks",
        "clean",
        "forget tasks that ended long ago (ApptainerConfig.task_kept_days), with their logs; what they made stays",
        "clean",
        "clean --all",
    )
    clean.add_argument("--all", action="store_true", help="all that are over")
    clean.set_defaults(func=_clean)


def _list(arguments: argparse.Namespace) -> int:
    tasks = list(iter_tasks(find_places()))
    if arguments.json:
        print_json([task.to_json() for task in tasks])
        return 0
    if not tasks:
        print_note("no tasks")
        return 0
    print_table(("TASK", "STATE", "STARTED", "WHAT", "PHASE"), [_to_row(task) for task in tasks])
    return 0


def _to_row(task: Task) -> tuple[str, ...]:
    phase = _describe_phase(task) if not task.is_over else str((task.error or {}).get("message", ""))
    return (task.id, task.state, _format_time(task.created_at), task.spec.title, make_printable(phase) or "-")


def _describe_phase(task: Task) -> str:
    return task.phase + (f" ({task.percent:.0f} %)" if task.percent is not None else "")


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def _show(arguments: argparse.Namespace) -> int:
    task = get_task(find_places(), arguments.id)
    if arguments.json:
        print_json(task.to_json())
        return 0
    rows = [
        ("task", task.id),
        ("what", task.spec.title),
        ("state", task.state),
        ("target", task.spec.target),
        ("started", _format_time(task.created_at)),
        ("ended", _format_time(task.ended_at) if task.ended_at else ""),
        *(("phase", make_printable(phase.name)) for phase in task.phases),
        *((name, str(value)) for name, value in (task.result or {}).items()),
        ("error", str((task.error or {}).get("message") or "")),
        ("hint", str((task.error or {}).get("hint") or "")),
    ]
    for name, text in rows:
        if text:
            print(f"{name:12} {text}")
    return 0


def _log(arguments: argparse.Namespace) -> int:
    places = find_places()
    task = get_task(places, arguments.id)
    if arguments.follow:
        for update in follow_task(places, task.id):
            sys.stdout.write(update.text)
            sys.stdout.flush()
        return 0
    offset = 0
    while (part := read_log(places, task.id, offset)).text:
        sys.stdout.write(part.text)
        offset = part.next_offset
    return 0


def _cancel(arguments: argparse.Namespace) -> int:
    places = find_places()
    for name in arguments.ids:
        task = cancel_task(places, name)
        print(f"{task.id} {task.state}")
    return 0


def _retry(arguments: argparse.Namespace) -> int:
    places = find_places()
    started = retry_task(places, arguments.id, environ=os.environ)
    if arguments.detach:
        print(started.task.id)
        return 0
    for name, value in show_task(places, started).items():
        print_note(f"{name}: {value}")
    return 0


def _clean(arguments: argparse.Namespace) -> int:
    places = find_places()
    if arguments.all:
        removed = clean_tasks(places, older_than_s=0.0)
    else:
        removed = clean_old_tasks(places, ApptainerConfig(config=load_config()))
    for task in removed:
        print(f"{task.id} {task.spec.title}")
    if not removed:
        print_note("nothing to forget")
    return 0
