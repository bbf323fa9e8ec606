"""Where the time of a start goes: a timeline from the call to the first answer, for kinds of images and containers, and local.

The marks come from outside: when processes began (/proc, in steps of 10 ms) and when files and sockets appeared. Nothing in the
package is changed for it.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.options import build_image_build, build_overlay_create
from jupyter_apptainer.engine.runner import Runner
from jupyter_apptainer.instances.janitor import iter_helpers, remove_tree
from jupyter_apptainer.instances.model import Instance
from jupyter_apptainer.instances.process import ProcessIdentity, ProcessStat, read_children
from jupyter_apptainer.kernels.connection import list_sockets
from jupyter_apptainer.kernels.plan import SHIM
from jupyter_apptainer.kernels.spares import pool

from .copies import keep_copies, unpack, use_copies
from .ways import (
    TIMEOUT_S,
    RunningKernel,
    Way,
    answer_info,
    build_local_way,
    build_way,
    connect,
    find_local_pid,
    launch,
)

PHASES = ("plan", "engine", "mount", "interpreter", "imports", "kernel", "answer")
TITLES: Mapping[str, str] = {
    "plan": "until the kernel's folders are made, right before the engine is started",
    "engine": "until it mounts the image",
    "mount": "until the main process runs",
    "interpreter": "until Python runs in it",
    "imports": "until ipykernel is imported, and the kernel forked",
    "kernel": "until it listens",
    "answer": "until it has answered kernel_info",
}
COMPRESSIONS = ("gzip", "zstd", "lz4")
OVERLAY_MIB = 64
SPARE = "lz4 SIF, spare container"
COPY = ", unpacked copy"


@dataclass(frozen=True)
class Timeline:
    """Seconds since the call at which each phase ended; a phase that there was not has the mark of the one before."""

    marks: Mapping[str, float]

    def durations(self) -> dict[str, float]:
        """Return how long each phase took; together they are the whole."""
        ends = [0.0]
        for phase in PHASES:
            ends.append(max(ends[-1], self.marks.get(phase, ends[-1])))
        return {phase: after - before for phase, before, after in zip(PHASES, ends, ends[1:], strict=False)}


async def measure_timeline(way: Way) -> Timeline:
    """Start a kernel, note the marks, end it."""
    began = time.time()
    # Of the first process below: its start is counted from the boot.
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    manager = way.build_manager()
    await launch(manager, way)
    kernel = RunningKernel(manager, connect(manager))
    try:
        await answer_info(kernel.client)
        answered = time.time()
        marks = dict(_iter_marks(kernel, lambda ticks: ticks / os.sysconf("SC_CLK_TCK") + boot))
        return Timeline({**{name: at - began for name, at in marks.items()}, "answer": answered - began})
    finally:
        await kernel.end()


def _iter_marks(kernel: RunningKernel, to_time: Callable[[int], float]) -> Iterator[tuple[str, float]]:
    """Yield what can be seen of a start that is over, in seconds since 1970. to_time: of the start of a process."""
    instance, container = kernel.instance, kernel.provisioner.kernel if kernel.provisioner else None
    if instance is None or container is None:
        process = ProcessIdentity.find(find_local_pid(kernel))
        if process:
            yield "plan", to_time(process.start_ticks)
    else:
        # The last of them: by then everything is checked and planned.
        yield "plan", os.stat(os.path.join(container.plan.private_dir, SHIM)).st_mtime
        yield from _iter_instance_marks(instance, to_time)
        found = container.find_kernel()
        if found:
            yield "imports", to_time(found.start_ticks)
        server = container.plan.fork_server
        if server and os.path.exists(server.socket):
            yield "interpreter", os.stat(server.socket).st_ctime
    sockets = [path for path in list_sockets(kernel.manager.get_connection_info()) if os.path.exists(path)]
    if sockets:
        yield "kernel", max(os.stat(path).st_ctime for path in sockets)


def _iter_instance_marks(instance: Instance, to_time: Callable[[int], float]) -> Iterator[tuple[str, float]]:
    helpers: list[ProcessStat] = list(iter_helpers(instance))
    if helpers:
        yield "engine", to_time(min(stat.start_ticks for stat in helpers))
    for pid in read_children(instance.init.pid):
        main = ProcessIdentity.find(pid)
        if main:
            yield "mount", to_time(main.start_ticks)


# --- kinds of images and containers


@contextmanager
def make_kinds(
    engine: EngineInfo, image: str, local_python: Path, say: Callable[[str], None]
) -> Iterator[dict[str, Way]]:
    """Give a way for each kind; their images lie in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="jpa-timeline-") as name:
        folder = Path(name)
        sandbox = folder / "sandbox"
        try:
            with keep_copies(folder) as copies:
                kinds = _make_kinds(engine, image, local_python, folder, sandbox, say)
                say("making the unpacked copy")
                unpack(engine, str(folder / "lz4.sif"), copies)
                for title in ("lz4 SIF", "lz4 SIF, overlay"):
                    kinds[f"{title}{COPY}"] = use_copies(kinds[title], copies)
                yield kinds
        finally:
            # Its folders may be closed to their owner.
            remove_tree(str(sandbox))


def _make_kinds(
    engine: EngineInfo, image: str, local_python: Path, folder: Path, sandbox: Path, say: Callable[[str], None]
) -> dict[str, Way]:
    env, runner = build_engine_environment(os.environ), Runner()
    say("unpacking the image")
    runner.run(build_image_build(engine, str(sandbox), image, env, is_sandbox=True))
    configs: dict[str, dict[str, object]] = {}
    for compression in COMPRESSIONS:
        say(f"packing it with {compression}")
        target = str(folder / f"{compression}.sif")
        runner.run(build_image_build(engine, target, str(sandbox), env, mksquashfs_args=f"-comp {compression}"))
        configs[f"{compression} SIF"] = {"image": target}
    overlay = str(folder / "overlay.img")
    runner.run(build_overlay_create(engine, overlay, OVERLAY_MIB, env))
    lz4 = configs["lz4 SIF"]
    configs["sandbox"] = {"image": str(sandbox)}
    configs["lz4 SIF, overlay"] = {**lz4, "overlays": [overlay]}
    configs["lz4 SIF, shared instance"] = {**lz4, "instance": f"shared:timeline-{os.getpid()}"}
    kinds = {"local": build_local_way(folder, local_python)}
    for title, config in configs.items():
        kinds[title] = build_way(folder, engine, title, config)
    joined = build_way(folder, engine, "lz4 SIF, not forked", lz4, is_forked=False)
    spare = build_way(folder, engine, SPARE, lz4)
    spare.settings.ApptainerConfig.spare_containers = 1
    return {**kinds, "lz4 SIF, not forked": joined, SPARE: replace(spare, is_server=True)}


async def run_timelines(kinds: Mapping[str, Way], rounds: int, say: Callable[[str], None]) -> dict[str, list[Timeline]]:
    """Measure each kind `rounds` times, in turns. The first start of each is not counted."""
    found: dict[str, list[Timeline]] = {title: [] for title in kinds}
    # A kernel that is there already, for the one that joins it.
    hosts = [await _start_host(way) for title, way in kinds.items() if "shared" in title]
    try:
        for number in range(rounds + 1):
            say(f"round {number} of {rounds}")
            for title, way in kinds.items():
                timeline = await measure_timeline(way)
                if number:
                    found[title].append(timeline)
                if way.is_server:
                    # For the next round, and not while another kind is measured.
                    await asyncio.to_thread(pool.wait_ready, TIMEOUT_S)
    finally:
        await asyncio.to_thread(pool.clear)
        for host in hosts:
            await host.end()
    return found


async def _start_host(way: Way) -> RunningKernel:
    manager = way.build_manager()
    await launch(manager, way)
    return RunningKernel(manager, connect(manager))


def render_timelines(found: Mapping[str, list[Timeline]]) -> str:
    """Return a table for a terminal: medians in milliseconds, one row for each kind."""
    lines = _build_lines(found)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    notes = [f"{phase}: {TITLES[phase]}" for phase in PHASES]
    return "\n".join([*table, "", *notes])


def render_page(found: Mapping[str, list[Timeline]], facts: str) -> str:
    """Return the same for a page, with a line that says where it was measured."""
    head, *lines = ["| " + " | ".join(line) + " |" for line in _build_lines(found)]
    return "\n".join([head, "|---" * (len(PHASES) + 3) + "|", *lines, "", facts])


def _build_lines(found: Mapping[str, list[Timeline]]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = [("start to answer, ms", *PHASES, "all", "of local")]
    local = statistics.median(timeline.marks["answer"] for timeline in found["local"])
    for title, timelines in found.items():
        columns = [statistics.median(t.durations()[phase] for t in timelines) for phase in PHASES]
        whole = statistics.median(t.marks["answer"] for t in timelines)
        cells = [f"{value * 1000:.0f}" for value in (*columns, whole)]
        lines.append((title, *cells, f"{whole / local:.2f}×"))
    return lines
