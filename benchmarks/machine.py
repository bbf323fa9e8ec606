"""What this machine is, and whether it is quiet enough to measure: who else uses the processor, what was forgotten."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

from jupyter_apptainer.instances.model import FUSE_HELPERS
from jupyter_apptainer.instances.process import iter_stats, read_command_line, read_cpu_seconds

WATCH_S = 1.0
BUSY_SHARE = 0.1
# https://docs.kernel.org/filesystems/squashfs.html: the superblock's compression id.
_COMPRESSIONS = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}
_SQUASHFS_MAGIC = b"hsqs"
_SEARCH_BYTES = 1 << 20
_SQUASHFS_ALIGNMENT = 4096


def find_disturbances() -> list[str]:
    """Name every process that uses more than 10 % of a core for a second, and forgotten kernels and instances."""
    return _find_busy() + _find_forgotten()


def _find_busy() -> list[str]:
    own = _list_own()
    before = {stat.pid: (stat.start_ticks, read_cpu_seconds(stat.pid)) for stat in iter_stats()}
    began = time.monotonic()
    time.sleep(WATCH_S)
    found: list[str] = []
    duration_s = time.monotonic() - began
    for stat in iter_stats():
        ticks, used_s = before.get(stat.pid, (stat.start_ticks, 0.0))
        if stat.pid in own or ticks != stat.start_ticks:
            continue
        share = (read_cpu_seconds(stat.pid) - used_s) / duration_s
        if share > BUSY_SHARE:
            found.append(f"busy: pid {stat.pid} {stat.comm} uses {share:.0%} of a core")
    return found


def _find_forgotten() -> list[str]:
    own = _list_own()
    found: list[str] = []
    for stat in iter_stats():
        if stat.pid in own or stat.state in "ZX":
            continue
        line = read_command_line(stat.pid)
        if "ipykernel" in line:
            found.append(f"kernel: pid {stat.pid} {line[:80]}")
        elif stat.comm.startswith("starter") and " instance: " in line:
            found.append(f"instance: pid {stat.pid} {line[:80]}")
        elif stat.comm in FUSE_HELPERS and stat.ppid == 1:
            found.append(f"helper without an instance: pid {stat.pid} {stat.comm}")
    return found


def _list_own() -> frozenset[int]:
    """This process and those that it was started by."""
    parents = {stat.pid: stat.ppid for stat in iter_stats()}
    own, pid = {os.getpid()}, os.getpid()
    while (pid := parents.get(pid, 0)) > 1:
        own.add(pid)
    return frozenset(own)


def describe_image(image: Path) -> str:
    """Say how the image is compressed: "lz4 SIF", "sandbox"."""
    if image.is_dir():
        return "sandbox"
    with image.open("rb") as stream:
        head = stream.read(_SEARCH_BYTES)
    for offset in range(0, len(head) - 96, _SQUASHFS_ALIGNMENT):
        if head.startswith(_SQUASHFS_MAGIC, offset):
            (number,) = struct.unpack_from("<H", head, offset + 20)
            return f"{_COMPRESSIONS.get(number, 'unknown')} SIF"
    return "SIF"


def count_cpus() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


def forget_pages(path: str) -> None:
    """Have Linux read the file from its disk the next time; of other things than files there is nothing to forget."""
    if not os.path.isfile(path) or os.path.islink(path) or not os.access(path, os.R_OK):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
