"""Starts and restarts against those of a local ipykernel: cold, warm (in a spare container), with a first cell that imports, and many at once.

`python -m benchmarks.starts`. The local counterpart has the image's versions, and what the cell imports too. A start ends when the
kernel has answered; with a cell, when that has ended. Many: all are asked for at once, until the last one has answered.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from traitlets.config import Config

from jupyter_apptainer.engine.locate import EngineInfo, get_engine
from jupyter_apptainer.kernels.forked import wait_ready
from jupyter_apptainer.kernels.spares import pool
from jupyter_apptainer.places import find_places

from .copies import keep_copies, unpack, use_copies
from .machine import count_cpus, describe_image, forget_pages
from .measures import measure_further, measure_restart, measure_start
from .options import add_image, add_machine, add_rounds, build_parser, refuse_disturbances, say
from .twin import make_twin, read_image_versions
from .ways import TIMEOUT_S, Way, build_local_way, build_way, start, wait_reply

PRELOADED = ("numpy", "matplotlib.pyplot")
PACKAGES = ("numpy", "matplotlib")
CELL = "import numpy, matplotlib.pyplot"
MANY = 50


@dataclass(frozen=True)
class Row:
    """One thing that is measured, as a share of the same for local kernels, and what it should be at most."""

    title: str
    key: str
    local: str
    limit: float | None
    unit: str = "s"

    def render(self, samples: Mapping[str, Sequence[float]]) -> str:
        """Return a line of the table, of medians."""
        own, local = statistics.median(samples[self.key]), statistics.median(samples[self.local])
        ratio = own / local
        target = "" if self.limit is None else f"≤ {self.limit:g}× {'✓' if ratio <= self.limit else '✗'}"
        return f"| {self.title} | {local:.2f} {self.unit} | {own:.2f} {self.unit} | {ratio:.2f}× | {target} |"


ROWS = (
    Row("start, cold", "cold", "local", 1.0),
    Row("start, cold, the image not in the page cache", "first", "local", 1.3),
    Row("start, cold, from an unpacked copy of the image", "copy", "local", 1.0),
    Row("the same, the copy not in the page cache", "first copy", "local", 1.3),
    Row("start, in a spare container", "warm", "local", 0.4),
    Row(f"start and `{CELL}`, cold", "cold cell", "local cell", None),
    Row("the same in a spare container that has them loaded", "warm cell", "local cell", 0.1),
    Row("restart, with `preload`, to a spare kernel", "restart", "restart local", 0.3),
    Row("memory of a further kernel in one container (proportional)", "further", "further local", 0.4, "MB"),
    Row("many at once, each in a container of its own", "many", "many local", 0.3),
    Row("many at once, each in a container of its own, from an unpacked copy", "many copies", "many local", 0.3),
    Row("many at once, in one container (`shared:NAME`)", "many shared", "many local", 0.3),
)


class Bench:
    """The ways in which kernels are started, and what was measured, in seconds and MB."""

    def __init__(self, folder: Path, engine: EngineInfo, image: str, python: Path, many: int, copies: Config) -> None:
        """copies: the settings for unpacked ones."""
        self._many = many
        # Over tcp: names of sockets are counted, and fifty managers at once would count alike.
        self._local = replace(build_local_way(folder, python), settings=Config())
        self._own = build_way(folder, engine, "own", {"image": image})
        self._copy = use_copies(self._own, copies)
        self._tree = Path(unpack(engine, image, copies))
        ready = build_way(folder, engine, "ready", {"image": image, "preload": list(PRELOADED)})
        ready.settings.ApptainerConfig.spare_containers = 1
        self._ready = replace(ready, is_server=True)
        self._shared = build_way(folder, engine, "shared", {"image": image, "instance": f"shared:starts-{folder.name}"})
        # A spare that comes up meanwhile would be counted with the others.
        self._shared.settings.ApptainerConfig.spare_kernels = 0
        self._cached: tuple[str, ...] = ()
        self.samples: dict[str, list[float]] = {}

    async def warm_up(self) -> None:
        """Start one of each, so that page cache and probes do not count."""
        for way in (self._local, self._own, self._copy, self._ready, self._shared):
            kernel = await start(way)
            if kernel.provisioner and kernel.provisioner.kernel:
                plan = kernel.provisioner.kernel.plan
                bundle = plan.fork_server.bundle if plan.fork_server else None
                self._cached = (plan.image, bundle) if bundle else (plan.image,)
            await kernel.end()
        await asyncio.to_thread(pool.clear)

    async def run(self) -> None:
        """One round."""
        await self._measure_one(self._local, "local", "local cell")
        await self._measure_one(self._own, "cold", "cold cell")
        for path in self._cached:
            forget_pages(path)
        await self._measure_one(self._own, "first", "first cell")
        await self._measure_one(self._copy, "copy", "copy cell")
        for path in (*self._cached[1:], *map(str, self._tree.rglob("*"))):
            forget_pages(path)
        await self._measure_one(self._copy, "first copy", "first copy cell")
        await self._measure_warm()
        for way, suffix in ((self._local, " local"), (self._ready, "")):
            await self._measure_restart(way, "restart" + suffix)
        for way, suffix in ((self._local, " local"), (self._shared, "")):
            self._add("further" + suffix, await measure_further(way) / 1e6)

    async def run_many(self) -> None:
        """Many at once, in each way."""
        await self._measure_many(self._local, "many local")
        await self._measure_many(self._own, "many")
        await self._measure_many(self._copy, "many copies")
        await self._measure_many(self._shared, "many shared")

    async def _measure_one(self, way: Way, key: str, cell_key: str) -> None:
        kernel, _, _, answered_s = await measure_start(way)
        try:
            began = time.monotonic()
            reply = await wait_reply(kernel.client, kernel.client.execute(CELL))
            if reply["content"]["status"] != "ok":
                raise RuntimeError(f"{CELL}: {reply['content']}")
            self._add(key, answered_s)
            self._add(cell_key, answered_s + time.monotonic() - began)
        finally:
            await kernel.end()

    async def _measure_warm(self) -> None:
        """A kernel runs already, and its server has a spare for the next one."""
        first = await start(self._ready)
        try:
            if not await asyncio.to_thread(pool.wait_ready, TIMEOUT_S):
                raise RuntimeError("no spare container came up")
            await self._measure_one(self._ready, "warm", "warm cell")
        finally:
            await first.end()
            await asyncio.to_thread(pool.clear)

    async def _measure_restart(self, way: Way, key: str) -> None:
        """A kernel has run for a while: where there is to be a spare one for its restart, it is there."""
        kernel = await start(way)
        try:
            runner = kernel.provisioner.kernel if kernel.provisioner else None
            if runner is not None and runner.instance is not None:
                await wait_ready(runner.plan, runner.instance, TIMEOUT_S)
            self._add(key, await measure_restart(kernel))
        finally:
            await kernel.end()
            await asyncio.to_thread(pool.clear)

    async def _measure_many(self, way: Way, key: str) -> None:
        began = time.monotonic()
        kernels = await asyncio.gather(*(start(way) for _ in range(self._many)))
        self._add(key, time.monotonic() - began)
        await asyncio.gather(*(kernel.end() for kernel in kernels))

    def _add(self, key: str, value: float) -> None:
        self.samples.setdefault(key, []).append(value)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print a table. Returns the exit status: 0 measured, 1 not measured."""
    options = _parse_arguments(argv)
    refuse_disturbances(is_forced=options.force)
    engine = get_engine(options.engine)
    wanted = read_image_versions(engine, str(options.image), "python3")
    twin = make_twin(wanted, find_places().cache, PACKAGES)
    with tempfile.TemporaryDirectory(prefix="jpa-starts-") as name, keep_copies(Path(name)) as copies:
        bench = Bench(Path(name), engine, str(options.image), twin.python, options.many, copies)
        asyncio.run(_run(bench, options.rounds))
    print("| what | local | container | ratio | target |\n|---|---|---|---|---|")
    print("\n".join(row.render(bench.samples) for row in ROWS))
    print(
        f"\nMedians of {options.rounds}, many: {options.many}, once. {count_cpus()} processors, {describe_image(options.image)}."
    )
    if options.json:
        options.json.write_text(json.dumps(bench.samples, indent=1), encoding="utf-8")
    return 0


async def _run(bench: Bench, rounds: int) -> None:
    await bench.warm_up()
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        await bench.run()
    say("many at once")
    await bench.run_many()


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser("benchmarks.starts", __doc__)
    add_image(parser, "with numpy and matplotlib")
    add_rounds(parser)
    add_machine(parser)
    parser.add_argument("--many", type=int, default=MANY, help=f"how many are started at once; default: {MANY}")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
