"""The run: rounds in which each way has its turn, so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from . import measures
from .commands import measure_commands
from .measures import Memory
from .ways import RunningKernel, Way, WayName, start


@dataclass
class Samples:
    """What was measured: by the measure's key and the way, one value a round. Times in seconds, sizes in bytes."""

    values: dict[str, dict[WayName, list[float]]] = field(default_factory=dict)
    interrupts_right: dict[WayName, list[bool]] = field(default_factory=dict)

    def add(self, key: str, way: Way, value: float) -> None:
        """Note one value."""
        self.values.setdefault(key, {}).setdefault(way.name, []).append(value)


async def run_rounds(ways: Mapping[WayName, Way], rounds: int, say: Callable[[str], None]) -> Samples:
    """Measure everything `rounds` times. The first start of each way is not counted: it warms the page cache."""
    for way in ways.values():
        await (await start(way)).end()
    samples = Samples()
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for key, (bare_s, own_s) in measure_commands().items():
            samples.add(key, ways["local"], bare_s)
            samples.add(key, ways["container"], own_s)
        for way in _rotate(list(ways.values()), number):
            if way.name in ("recipe", "lent"):
                await _measure_starts(way, samples)
            else:
                await _measure_kernel(way, samples)
    return samples


def _rotate(ways: Sequence[Way], number: int) -> list[Way]:
    """Let another way go first each time: what comes after a busy neighbour may find a warmer or a colder machine."""
    first = number % len(ways)
    return [*ways[first:], *ways[:first]]


async def _measure_starts(way: Way, samples: Samples) -> None:
    kernel, _, _, answered_s = await measures.measure_start(way)
    try:
        samples.add("start", way, answered_s)
        samples.add("restart", way, await measures.measure_restart(kernel))
    finally:
        await kernel.end()


async def _measure_kernel(way: Way, samples: Samples) -> None:
    samples.add("first_result", way, await measures.measure_first_result(way))
    samples.add("memory_further", way, await measures.measure_further(way.share()))
    if way.name == "container":
        memory_bytes, restart_s = await measures.measure_rest(way.rest())
        samples.add("memory_rest", way, memory_bytes)
        samples.add("restart_rest", way, restart_s)
    kernel, returned_s, busy_s, answered_s = await measures.measure_start(way)
    try:
        samples.add("start_call", way, returned_s)
        samples.add("start_server", way, busy_s)
        samples.add("start", way, answered_s)
        await kernel.client.wait_for_ready(timeout=60)
        memory = measures.read_kernel_memory(kernel)
        _add_memory(samples, way, memory)
        # Right after the start: later the fork server rests.
        restart_s = await measures.measure_restart(kernel)
        samples.add("restart", way, restart_s)
        await kernel.client.wait_for_ready(timeout=60)
        if kernel.instance is None:
            samples.add("memory_rest", way, memory.total)
            samples.add("restart_rest", way, restart_s)
        samples.add("info", way, await measures.measure_info(kernel.client))
        samples.add("execute", way, await measures.measure_execute(kernel.client))
        samples.add("one_display", way, await measures.measure_one_display(kernel.client))
        samples.add("payloads", way, await measures.measure_payloads(kernel.client))
        samples.add("small", way, await measures.measure_small_messages(kernel.client))
        samples.add("lines", way, await measures.measure_lines(kernel.client))
        await _measure_interrupt(way, samples, kernel)
        samples.add("shutdown", way, await measures.measure_shutdown(kernel))
    except BaseException:
        await kernel.end()
        raise


async def _measure_interrupt(way: Way, samples: Samples, kernel: RunningKernel) -> None:
    duration_s, is_right = await measures.measure_interrupt(kernel)
    samples.add("interrupt", way, duration_s)
    samples.interrupts_right.setdefault(way.name, []).append(is_right)


def _add_memory(samples: Samples, way: Way, memory: Memory) -> None:
    samples.add("memory", way, memory.total)
    samples.add("memory_kernel", way, memory.kernel)
    samples.add("memory_engine", way, memory.engine)
    samples.add("memory_helpers", way, memory.helpers)
