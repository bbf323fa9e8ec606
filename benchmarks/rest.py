"""How long the REST interface takes to answer while 50 instances run and 8 images are built: `python -m benchmarks.rest`.

All is real: the instances, the builds, one Jupyter server. Each route is asked in turn, as often as --rate says in all. Beside them stands
`/api/status`, jupyter_server's own and as simple as a handler can be: what it takes is the machine's and the server's share.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import logging
import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tornado.httpclient import AsyncHTTPClient

from jupyter_apptainer.engine.locate import get_engine
from jupyter_apptainer.tasks.model import Task
from jupyter_apptainer.tasks.store import iter_tasks

from .machine import count_cpus
from .options import add_image, add_machine, build_parser, refuse_disturbances, say
from .rest_meter import LOOP, PROCESSOR
from .rest_world import BASE, TOKEN, BusyServer, Mark, World

# Milliseconds at most, the 99th percentile of each route.
TARGET_MS = 50.0
REFERENCE = "/api/status"
NOUNS = ("status", "images", "instances", "kernels", "overlays", "gpus", "storage", "tasks")
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Row:
    """One route, or the loop: how often it was asked, and milliseconds."""

    path: str
    count: int
    p50_ms: float
    p99_ms: float
    most_ms: float

    def render(self) -> str:
        """Return a line of the table."""
        verdict = "" if self.path in (REFERENCE, LOOP, PROCESSOR) else "✓" if self.p99_ms <= TARGET_MS else "✗"
        return (
            f"| {self.path} | {self.count} | {self.p50_ms:.1f} | {self.p99_ms:.1f} | {self.most_ms:.1f} | {verdict} |"
        )


def build_rows(marks: Iterable[Mark]) -> list[Row]:
    """Return a row for each path."""
    found: dict[str, list[float]] = defaultdict(list)
    for mark in marks:
        found[_name(mark.path)].append(mark.ms)
    return [_build_row(path, sorted(values)) for path, values in sorted(found.items())]


def _name(path: str) -> str:
    words = path.split("/")
    return "/".join("{id}" if before == "tasks" else word for before, word in zip(["", *words], words, strict=False))


def _build_row(path: str, values: Sequence[float]) -> Row:
    def rank(share: float) -> float:
        return values[math.ceil(share * len(values)) - 1]

    return Row(path, len(values), rank(0.5), rank(0.99), values[-1])


async def ask_in_turns(server: BusyServer, paths: Sequence[str], rate: float, seconds: float) -> None:
    """Ask for so many paths a second in all, whether or not those before were answered."""
    client = AsyncHTTPClient(max_clients=1000)
    headers = {"Authorization": f"token {TOKEN}"}
    asked = []
    began = time.monotonic()
    for number, path in enumerate(itertools.cycle(paths)):
        due = began + number / rate
        if due - began > seconds:
            break
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        url = server.url.rstrip("/") + path
        asked.append(
            asyncio.ensure_future(
                client.fetch(url, headers=headers, connect_timeout=TIMEOUT_S, request_timeout=TIMEOUT_S)
            )
        )
    await asyncio.gather(*asked)


def measure(world: World, options: argparse.Namespace) -> Mapping[str, list[Mark]]:
    """Return what the meter reads, idle and with the builds at work."""
    asyncio.run(world.start_instances(options.instances))
    say(f"{options.instances} instances run")
    server = world.start_server(max(1, options.builds))
    found = {"idle": _measure_phase(server, _list_paths([]), options)}
    # Longer than is measured: unpacking, before their main step, is measured as well.
    world.order_builds(server, options.builds, options.seconds)
    tasks = list(iter_tasks(world.places))
    found["builds"] = _measure_phase(server, _list_paths(tasks), options)
    active = sum(not task.is_over for task in iter_tasks(world.places))
    if active < options.builds:
        say(
            f"only {active} of {options.builds} builds were still at work at the end: the figures are of less than was asked for"
        )
    return found


def _list_paths(tasks: Sequence[Task]) -> list[str]:
    own = [f"/{BASE}/{noun}" for noun in NOUNS]
    of_tasks = [f"/{BASE}/tasks/{tasks[0].id}{rest}" for rest in ("", "/log?offset=0")] if tasks else []
    return [REFERENCE, *own, *of_tasks]


def _measure_phase(server: BusyServer, paths: Sequence[str], options: argparse.Namespace) -> list[Mark]:
    # The first of each reads what the later ones know.
    asyncio.run(ask_in_turns(server, paths, 10.0, len(paths) / 10))
    before = server.count_marks()
    asyncio.run(ask_in_turns(server, paths, options.rate, options.seconds))
    marks = server.read_marks(before)
    for mark in marks:
        if mark.status != 200:
            raise RuntimeError(f"{mark.path} answered {mark.status}")
    return marks


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print tables. Returns the exit status: 0 measured, 1 not measured."""
    options = _parse_arguments(argv)
    logging.basicConfig(level=logging.ERROR)
    refuse_disturbances(is_forced=options.force)
    with (
        tempfile.TemporaryDirectory(prefix="jpa-rest-", dir="/var/tmp", ignore_cleanup_errors=True) as folder,
        World(Path(folder), get_engine(options.engine), options.image) as world,
    ):
        found = measure(world, options)
        _report(found, options)
    return 0


def _report(found: Mapping[str, list[Mark]], options: argparse.Namespace) -> None:
    for phase, marks in found.items():
        print(
            f"\n{phase}\n\n| route | answers | p50 ms | p99 ms | most ms | p99 ≤ {TARGET_MS:.0f} |\n|---|---|---|---|---|---|"
        )
        print("\n".join(row.render() for row in build_rows(marks)))
    print(
        f"\n{options.instances} instances, {options.builds} builds, {options.rate:g} requests a second, {count_cpus()} processors"
    )
    if options.json:
        rows = {phase: [vars(row) for row in build_rows(marks)] for phase, marks in found.items()}
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser("benchmarks.rest", __doc__)
    add_image(parser, "a SIF with Python")
    add_machine(parser)
    parser.add_argument("--instances", type=int, default=50, help="how many run; default: 50")
    parser.add_argument("--builds", type=int, default=8, help="how many are at work at once; default: 8")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second, all routes together; default: 20")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each phase is measured; default: 60")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
