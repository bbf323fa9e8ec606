"""`instance list | stats | logs | stop | start | run` of a cell: services, whether they really run, and what they print.

The engine says "started successfully" of a service that dies at once, needs cgroups for its statistics, and has no command for
logs. Here the processes in an instance are looked at.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from ..engine.command import Command, Completed
from ..engine.environment import build_engine_environment
from ..engine.options import InstanceRow, build_instance_list
from ..engine.runner import Runner
from ..errors import InstanceNotFound, ServiceEnded, SpecError
from ..instances.ledger import iter_entries
from ..instances.process import (
    ProcessIdentity,
    ProcessStat,
    iter_stats,
    read_cpu_seconds,
    read_memory,
    read_namespace,
    read_stat,
)
from .context import Context
from .engine_words import run_engine
from .line import EngineLine, suggest
from .model import Answer, OnText, Request, Value
from .service_logs import LogStart, forget_start, load_start, measure_logs, read_logs, save_start

# How long a service that was just started is watched. Most that die do so at once.
GRACE_S = 1.0
# Those of kernels, which a pattern reaches only where it names them.
_KERNELS = "jpa-"
_TAIL_LINES = 12
_MIB = 2**20
_LIST_COLUMNS = (
    ("name", "NAME"),
    ("state", "STATE"),
    ("pid", "PID"),
    ("started", "STARTED"),
    ("notebook", "NOTEBOOK"),
    ("image", "IMAGE"),
)
_STATS_COLUMNS = (
    ("name", "NAME"),
    ("processes", "PROCESSES"),
    ("memory_mib", "MEMORY MiB"),
    ("cpu_s", "CPU s"),
    ("up_s", "UP s"),
)


def list_services(context: Context, line: EngineLine) -> Answer:
    """`instance list [GLOB]`, and `ps`: with what runs in each, and the notebook that it belongs to."""
    labels = {entry.instance_name: entry.label for entry in iter_entries(context.places)}
    rows = [_describe(row, labels) for row in _list_rows(context) if _fits(row.name, line.arguments or ("*",))]
    return _answer(line, rows, _LIST_COLUMNS)


def show_stats(context: Context, line: EngineLine) -> Answer:
    """`instance stats [NAME | GLOB …]`, read in /proc: works without cgroups."""
    chosen = _choose(context, line.arguments) if line.arguments else _list_rows(context)
    return _answer(line, [_measure(row) for row in chosen], _STATS_COLUMNS)


def show_logs(context: Context, patterns: Sequence[str], on_text: OnText) -> Answer:
    """`instance logs NAME | GLOB …`: what a service has printed since this start of it."""
    if not patterns:
        raise SpecError("`instance logs` lacks NAME", hint="as in `%apptainer instance logs web`")
    out = err = ""
    for row in _choose(context, patterns):
        start = load_start(context, row)
        texts = read_logs(row, start or LogStart(0, 0))
        if start is None and any(texts):
            on_text("stderr", f"{row.name} was not started from a notebook: earlier starts may be in its log\n")
        for stream, text in zip(("stdout", "stderr"), texts, strict=True):
            if text:
                on_text(stream, text)
        out, err = out + texts[0], err + texts[1]
    return Answer(0, out, err)


def stop_services(context: Context, line: EngineLine, request: Request, on_text: OnText) -> Answer:
    """`instance stop NAME | GLOB … | --all`: what is asked and nothing else; the instances of kernels only where they are named."""
    is_all = line.has_flag("all")
    if not line.arguments and not is_all:
        raise SpecError("`instance stop` lacks NAME", hint="a name, a pattern as in 'web*', or --all")
    rows = _list_rows(context) if is_all else _choose(context, line.arguments)
    patterns = ("*",) if is_all else line.arguments
    named = [pattern for pattern in patterns if pattern.startswith(_KERNELS)]
    left = [row.name for row in rows if row.name.startswith(_KERNELS) and not _fits(row.name, named)]
    for row in rows:
        if row.name not in left:
            one = EngineLine(line.head, line.command, line.flags, (*_keep_options(line), row.name), (row.name,))
            run_engine(context, one, request, on_text)
            forget_start(context, row.name)
    if left:
        on_text("stderr", f"left alone, because kernels run in them: {', '.join(left)}\n")
    return Answer(0)


def start_service(context: Context, line: EngineLine, request: Request, on_text: OnText) -> Answer:
    """`instance start | run`, and then a look whether anything runs in it. Raises ServiceEnded with the service's own words."""
    name = line.arguments[1]
    start = measure_logs(context, name)
    answer = run_engine(context, line, request, on_text)
    row = next((row for row in _list_rows(context) if row.name == name), None)
    if row is None:
        raise ServiceEnded(f"the instance {name} has ended already", hint=f"see its log: {start}")
    save_start(context, row, start)
    if _watch(row.pid) or not (line.command == ("instance", "run") or _has_startscript(context, row)):
        return answer
    text = "\n".join(read_logs(row, start)).strip()
    raise ServiceEnded(
        f"the instance {name} was started, but its service has ended already{'' if text else ', and printed nothing'}",
        hint=f"`%apptainer instance stop {name}`, mend what it says, and start it again",
        log_tail=text.splitlines()[-_TAIL_LINES:],
    )


# --- which


def _list_rows(context: Context) -> tuple[InstanceRow, ...]:
    return Runner().run(build_instance_list(context.engine, build_engine_environment(context.environ)))


def _choose(context: Context, patterns: Sequence[str]) -> list[InstanceRow]:
    """Return the instances that are meant. Raises InstanceNotFound for a pattern that fits none."""
    rows = _list_rows(context)
    for pattern in patterns:
        if not any(_fits(row.name, (pattern,)) for row in rows):
            names = [row.name for row in rows]
            raise InstanceNotFound(
                f"no instance is named {pattern!r}",
                hint=suggest(pattern, names) or f"running: {', '.join(names) or 'none'}",
            )
    return [row for row in rows if _fits(row.name, patterns)]


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _keep_options(line: EngineLine) -> tuple[str, ...]:
    """Return the options of `instance stop` that stand for one instance as well."""
    return tuple(f"--{name}={value}" if value else f"--{name}" for name, value in line.flags if name != "all")


def _answer(line: EngineLine, rows: list[dict[str, object]], columns: tuple[tuple[str, str], ...]) -> Answer:
    return Answer(0, value=Value("plain", rows) if line.has_flag("json") else Value("table", rows, columns))


# --- how they are


def _describe(row: InstanceRow, labels: dict[str, str]) -> dict[str, object]:
    began = _find_start_time(row.pid)
    return {
        "name": row.name,
        "state": "running" if _find_members(row.pid) else "empty",
        "pid": row.pid,
        "started": time.strftime("%Y-%m-%d %H:%M", time.localtime(began)) if began else None,
        "notebook": os.path.basename(labels.get(row.name, "")) or None,
        "image": row.image,
        "log_out": row.log_out_path,
        "log_err": row.log_err_path,
    }


def _measure(row: InstanceRow) -> dict[str, object]:
    members = [row.pid, *(stat.pid for stat in _find_members(row.pid))]
    began = _find_start_time(row.pid)
    return {
        "name": row.name,
        "pid": row.pid,
        "processes": len(members) - 1,
        "memory_mib": round(sum(read_memory(pid) or 0 for pid in members) / _MIB, 1),
        "cpu_s": round(sum(map(read_cpu_seconds, members)), 2),
        "up_s": round(time.time() - began) if began else None,
    }


def _find_members(init: int) -> list[ProcessStat]:
    """Return the processes in the instance beside its PID 1."""
    namespace = read_namespace(init, "pid")
    return [
        stat
        for stat in iter_stats()
        if namespace and stat.pid != init and stat.state not in "ZX" and read_namespace(stat.pid, "pid") == namespace
    ]


def _watch(init: int) -> bool:
    """Wait for the end of what runs in the instance; False where nothing is left before the time of grace is over."""
    deadline = time.monotonic() + GRACE_S
    while members := _find_members(init):
        left = deadline - time.monotonic()
        if left <= 0 or not ProcessIdentity(members[0].pid, members[0].start_ticks).wait_gone(left):
            return True
    return False


def _has_startscript(context: Context, row: InstanceRow) -> bool:
    command = Command(
        (context.engine.path, "inspect", "--startscript", row.image),
        build_engine_environment(context.environ),
        _get_script,
        f"inspect {row.image}",
        row.image,
    )
    return bool(Runner().run(command))


def _get_script(completed: Completed) -> str:
    """Return the script without its comments: the engine's own for an image without one has nothing else."""
    lines = (line.strip() for line in completed.stdout.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def _find_start_time(pid: int) -> float | None:
    stat = read_stat(pid)
    boot = next((line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime ")), None)
    if stat is None or boot is None:
        return None
    return float(boot.split()[1]) + stat.start_ticks / os.sysconf("SC_CLK_TCK")
