"""What it costs to watch the GPUs: `python -m benchmarks.gpu`. Eight devices and 200 processes, through the tests' stand-in.

NVIDIA's own driver is not measured by this: what it takes to answer is not ours to change.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from jupyter_apptainer.gpu import GpuReader
from tests.gpu.world import GIB, STANDIN, World, make_card


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--processes", type=int, default=200)
    parser.add_argument("--looks", type=int, default=100)
    arguments = parser.parse_args()
    sys.path.insert(0, str(STANDIN))
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        os.environ["JPA_TEST_GPUS"] = str(Path(folder, "gpus.json"))
        pids = [_start(stack) for _ in range(arguments.processes)]
        world = World(Path(folder, "gpus.json"))
        world.show(*(_make_card(index, pids[index :: arguments.devices]) for index in range(arguments.devices)))
        first_s, later_s = _measure(arguments.looks)
    print(
        f"{arguments.devices} devices, {arguments.processes} processes: first look {first_s * 1000:.1f} ms of a core,"
    )
    print(f"each later one {later_s * 1000:.1f} ms: {later_s * 100:.2f} percent of a core at one look a second")
    return 0


def _measure(looks: int) -> tuple[float, float]:
    with GpuReader() as reader:
        started = time.process_time()
        reader.read()
        first = time.process_time()
        for _ in range(looks):
            reader.read()
        return first - started, (time.process_time() - first) / looks


def _make_card(index: int, pids: list[int]) -> dict[str, object]:
    return make_card(
        index, processes=[[pid, GIB] for pid in pids], shares=[[pid, stamp, 3] for stamp, pid in enumerate(pids)]
    )


def _start(stack: ExitStack) -> int:
    process = stack.enter_context(subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL))
    assert process.stdin is not None
    stack.callback(process.stdin.close)
    return process.pid


if __name__ == "__main__":
    sys.exit(main())
