"""One function for each thing that is measured; each takes a running kernel and gives seconds, bytes or a rate."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient

from jupyter_apptainer.instances.janitor import iter_helpers
from jupyter_apptainer.instances.model import Instance
from jupyter_apptainer.instances.process import ProcessIdentity, read_children, read_memory
from jupyter_apptainer.instances.stats import iter_members

from .ways import TIMEOUT_S, RunningKernel, Way, answer_info, connect, find_local_pid, launch, start, wait_reply

ROUND_TRIPS = 100
PAYLOADS = 100
# Two processes that share two cores do not always meet in the same way.
REPEATS = 3
PAYLOAD_BYTES = 1_000_000
# ZMQ's queues hold 1000 messages and then drop them.
SMALL_MESSAGES = 800
LINES = 20_000
SINGLE_DISPLAYS = 30
# A second interrupt that comes late would arrive within this time.
ECHO_S = 0.25

_SEND_PAYLOADS = f"""
from IPython.display import publish_display_data
_payload = "x" * {PAYLOAD_BYTES}
for _ in range({PAYLOADS}):
    publish_display_data({{"text/plain": _payload}})
"""
_SEND_SMALL = f"""
from IPython.display import publish_display_data
for _number in range({SMALL_MESSAGES}):
    publish_display_data({{"text/plain": str(_number)}})
"""
_SEND_LINES = f"for _number in range({LINES}): print('line', _number)"
_SEND_ONE = f"""
from IPython.display import publish_display_data
publish_display_data({{"text/plain": "x" * {PAYLOAD_BYTES}}})
"""
_SLEEP = "import time\nprint('sleeping', flush=True)\ntime.sleep(60)"
_COUNT_INTERRUPTS = f"""
import time
_hits = 0
_end = time.monotonic() + 60
print('sleeping', flush=True)
while time.monotonic() < _end:
    try:
        time.sleep(_end - time.monotonic())
    except KeyboardInterrupt:
        _hits += 1
        _end = min(_end, time.monotonic() + {ECHO_S})
print('hits', _hits, 'state', _kept)
"""


@dataclass(frozen=True)
class Memory:
    """Proportional set sizes in bytes, by what the process is for."""

    kernel: int
    engine: int
    helpers: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.kernel + self.engine + self.helpers


async def measure_start(way: Way) -> tuple[RunningKernel, float, float, float]:
    """Start a kernel with a new manager; return it, when the start returned, the processor time that this process took until then,
    and when the kernel had answered."""
    began, busy = time.monotonic(), time.process_time()
    manager = way.build_manager()
    await launch(manager, way)
    returned, busy = time.monotonic() - began, time.process_time() - busy
    kernel = RunningKernel(manager, connect(manager))
    await answer_info(kernel.client)
    return kernel, returned, busy, time.monotonic() - began


async def measure_first_result(way: Way) -> float:
    """Start a kernel as nbclient does (it waits for `wait_for_ready`), run `1`, shut down; return when the result was there."""
    began = time.monotonic()
    manager = way.build_manager()
    await launch(manager, way)
    kernel = RunningKernel(manager, connect(manager))
    try:
        await kernel.client.wait_for_ready(timeout=TIMEOUT_S)
        await wait_reply(kernel.client, kernel.client.execute("1"))
        return time.monotonic() - began
    finally:
        await kernel.end()


async def measure_restart(kernel: RunningKernel) -> float:
    """Restart the kernel and wait until it has answered a new client."""
    kernel.client.stop_channels()
    began = time.monotonic()
    await kernel.manager.restart_kernel()
    kernel.client = connect(kernel.manager)
    await answer_info(kernel.client)
    return time.monotonic() - began


async def measure_execute(client: AsyncKernelClient) -> float:
    """Median time from sending `1` to the reply."""
    times: list[float] = []
    for _ in range(ROUND_TRIPS):
        began = time.monotonic()
        msg_id = client.execute("1")
        await wait_reply(client, msg_id)
        times.append(time.monotonic() - began)
        await _wait_idle(client, msg_id)
    return statistics.median(times)


async def measure_info(client: AsyncKernelClient) -> float:
    """Median time from asking for kernel_info to the reply."""
    times: list[float] = []
    for _ in range(ROUND_TRIPS):
        times.append(await answer_info(client))
    return statistics.median(times)


async def measure_payloads(client: AsyncKernelClient) -> float:
    """MB per second of displays with 1 MB each, as they arrive decoded."""
    return await _measure_rate(client, _SEND_PAYLOADS) * PAYLOAD_BYTES / 1e6


async def measure_small_messages(client: AsyncKernelClient) -> float:
    """Small displays per second."""
    return await _measure_rate(client, _SEND_SMALL)


async def measure_lines(client: AsyncKernelClient) -> float:
    """Lines per second that `print` writes in a loop, until the last has arrived."""
    began = time.monotonic()
    msg_id = client.execute(_SEND_LINES)
    messages = await _wait_idle(client, msg_id)
    duration_s = time.monotonic() - began
    count = sum(message["content"]["text"].count("\n") for message in messages if message["msg_type"] == "stream")
    if count != LINES:
        raise RuntimeError(f"{count} of {LINES} lines arrived")
    await wait_reply(client, msg_id)
    return LINES / duration_s


async def measure_one_display(client: AsyncKernelClient) -> float:
    """Median time of a cell that shows 1 MB, as a figure or a table is shown, from sending it until it is idle."""
    times: list[float] = []
    for _ in range(SINGLE_DISPLAYS):
        began = time.monotonic()
        msg_id = client.execute(_SEND_ONE)
        await _wait_idle(client, msg_id)
        times.append(time.monotonic() - began)
        await wait_reply(client, msg_id)
    return statistics.median(times)


async def _measure_rate(client: AsyncKernelClient, code: str) -> float:
    """Median of the displays per second that `code` makes."""
    rates: list[float] = []
    for _ in range(REPEATS):
        count, duration_s = await _time_displays(client, code)
        rates.append((count - 1) / duration_s)
    return statistics.median(rates)


async def _time_displays(client: AsyncKernelClient, code: str) -> tuple[int, float]:
    """Run `code`; return how many displays came, and the seconds from the first to the last."""
    msg_id = client.execute(code)
    arrived: list[float] = []
    while True:
        message = await _next_iopub(client, msg_id)
        if message["msg_type"] == "display_data":
            arrived.append(time.monotonic())
        elif message["msg_type"] == "error":
            raise RuntimeError("\n".join(message["content"]["traceback"]))
        elif _is_idle(message):
            break
    await wait_reply(client, msg_id)
    return len(arrived), arrived[-1] - arrived[0]


async def measure_interrupt(kernel: RunningKernel) -> tuple[float, bool]:
    """Interrupt a sleeping cell; return the time until it is idle, and whether it got exactly one KeyboardInterrupt and kept its
    state. A second cell counts, since a second interrupt might arrive after the first cell's end."""
    client = kernel.client
    await wait_reply(client, client.execute("_kept = 41"))
    msg_id = await _begin_sleep(client, _SLEEP)
    began = time.monotonic()
    await kernel.manager.interrupt_kernel()
    errors = [message["content"]["ename"] for message in await _wait_idle(client, msg_id) if _is_error(message)]
    duration_s = time.monotonic() - began
    await wait_reply(client, msg_id)
    counting = await _begin_sleep(client, _COUNT_INTERRUPTS)
    await kernel.manager.interrupt_kernel()
    printed = "".join(m["content"]["text"] for m in await _wait_idle(client, counting) if m["msg_type"] == "stream")
    await wait_reply(client, counting)
    return duration_s, errors == ["KeyboardInterrupt"] and printed.strip() == "hits 1 state 41"


async def _begin_sleep(client: AsyncKernelClient, code: str) -> str:
    msg_id: str = client.execute(code)
    while (await _next_iopub(client, msg_id))["msg_type"] != "stream":
        continue
    # From its print to its sleep the cell takes microseconds.
    await asyncio.sleep(0.05)
    return msg_id


async def measure_shutdown(kernel: RunningKernel) -> float:
    """Shut down; return when the call had returned and kernel, instance and helpers were gone."""
    instance = kernel.instance
    processes = [ProcessIdentity.find(pid) for pid in list_pids(kernel)]
    kernel.client.stop_channels()
    began = time.monotonic()
    await kernel.manager.shutdown_kernel()
    for process in processes:
        if process is not None and not process.wait_gone(TIMEOUT_S):
            raise RuntimeError(f"pid {process.pid} did not end")
    duration_s = time.monotonic() - began
    if instance is not None and list(iter_helpers(instance)):
        raise RuntimeError(f"instance {instance.name} left helpers behind")
    return duration_s


def list_pids(kernel: RunningKernel) -> list[int]:
    """Every process that exists because of this kernel."""
    if kernel.instance is None:
        return [find_local_pid(kernel)]
    return [
        *_list_kernel(kernel, kernel.instance),
        *_list_engine(kernel, kernel.instance),
        *_list_helpers(kernel.instance),
    ]


def read_kernel_memory(kernel: RunningKernel) -> Memory:
    """Measure all processes that exist because of this kernel."""
    instance = kernel.instance
    if instance is None:
        return Memory(_sum_memory([find_local_pid(kernel)]), 0, 0)
    return Memory(
        kernel=_sum_memory(_list_kernel(kernel, instance)),
        engine=_sum_memory(_list_engine(kernel, instance)),
        helpers=_sum_memory(_list_helpers(instance)),
    )


async def measure_rest(way: Way) -> tuple[int, float]:
    """Start a kernel whose fork server soon rests; return the bytes that its processes need then, and the seconds that a restart takes."""
    kernel = await start(way)
    try:
        await kernel.client.wait_for_ready(timeout=TIMEOUT_S)
        assert kernel.instance is not None
        deadline = time.monotonic() + TIMEOUT_S
        # No library of a package is mapped then.
        while any("libzmq" in _read_maps(pid) for pid in read_children(kernel.instance.init.pid)):
            if time.monotonic() > deadline:
                raise RuntimeError("the fork server does not rest")
            await asyncio.sleep(0.1)
        return read_kernel_memory(kernel).total, await measure_restart(kernel)
    finally:
        await kernel.end()


def _read_maps(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


async def measure_further(way: Way) -> float:
    """Start a kernel and then another one; return the bytes that the second one has added to what both use together."""
    first = await start(way)
    try:
        await first.client.wait_for_ready(timeout=TIMEOUT_S)
        before = read_kernel_memory(first).total
        second = await start(way)
        try:
            await second.client.wait_for_ready(timeout=TIMEOUT_S)
            return _sum_memory(sorted({*list_pids(first), *list_pids(second)})) - before
        finally:
            await second.end()
    finally:
        await first.end()


def _list_kernel(kernel: RunningKernel, instance: Instance) -> list[int]:
    ours = {instance.init.pid, *read_children(instance.init.pid)}
    return [stat.pid for stat in iter_members(instance) if stat.pid not in ours]


def _list_engine(kernel: RunningKernel, instance: Instance) -> list[int]:
    container = kernel.provisioner.kernel if kernel.provisioner else None
    # The engine's process of a kernel that has joined; that of a forked one is the kernel.
    is_joined = container is not None and isinstance(container.process, subprocess.Popen)
    joined = [container.process.pid] if is_joined and container and container.process else []
    # The child of process 1 is the fork server.
    return [instance.starter.pid, instance.init.pid, *read_children(instance.init.pid), *joined]


def _list_helpers(instance: Instance) -> list[int]:
    return [stat.pid for stat in iter_helpers(instance)]


def _sum_memory(pids: list[int]) -> int:
    return sum(read_memory(pid) or 0 for pid in pids)


async def _next_iopub(client: AsyncKernelClient, msg_id: str) -> dict[str, Any]:
    while True:
        message: dict[str, Any] = await client.get_iopub_msg(timeout=TIMEOUT_S)
        if message["parent_header"].get("msg_id") == msg_id:
            return message


async def _wait_idle(client: AsyncKernelClient, msg_id: str) -> list[dict[str, Any]]:
    messages = [await _next_iopub(client, msg_id)]
    while not _is_idle(messages[-1]):
        messages.append(await _next_iopub(client, msg_id))
    return messages


def _is_idle(message: dict[str, Any]) -> bool:
    return bool(message["msg_type"] == "status" and message["content"]["execution_state"] == "idle")


def _is_error(message: dict[str, Any]) -> bool:
    return bool(message["msg_type"] == "error")
