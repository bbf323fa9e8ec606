"""Memory of processes that are looked at again and again: the same figures, for less work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from jupyter_apptainer.instances import memory
from jupyter_apptainer.instances.memory import MemoryReader
from jupyter_apptainer.instances.process import ProcessStat, read_memory, read_stat
from jupyter_apptainer.instances.table import ProcessTable

# Fills 50 MB for the first line that it reads, then waits for its end.
_GROWS = "import sys; print(flush=True); sys.stdin.readline(); kept = bytearray(50_000_000); print(flush=True); sys.stdin.readline()"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _GROWS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        assert process.stdout
        process.stdout.readline()
        yield process
        process.kill()


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pids whose pages the kernel was made to count."""
    pids: list[int] = []

    def read(pid: int) -> int | None:
        pids.append(pid)
        return read_memory(pid)

    monkeypatch.setattr(memory, "read_memory", read)
    return pids


def measure(reader: MemoryReader, *pids: int) -> list[int]:
    table = ProcessTable.read()
    return reader.measure(table, [[table.stats[pid]] for pid in pids])


def stop(pid: int) -> None:
    """Have it do nothing at all, so that nothing about it changes."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)


def test_only_what_has_changed_is_read_anew(child: subprocess.Popen[str], looked_at: list[int]) -> None:
    reader = MemoryReader()
    stop(child.pid)
    before = measure(reader, child.pid)
    # What it shares with others counts for less the more of them there are, and those come and go.
    assert before == [pytest.approx(read_memory(child.pid), rel=0.2)]
    assert measure(reader, child.pid) == before
    assert looked_at == [child.pid]
    os.kill(child.pid, signal.SIGCONT)
    assert child.stdin
    assert child.stdout
    child.stdin.write("\n")
    child.stdin.flush()
    child.stdout.readline()
    stop(child.pid)
    (after,) = measure(reader, child.pid)
    assert after > before[0] + 40_000_000
    assert looked_at == [child.pid] * 2


def test_the_gone_have_none(child: subprocess.Popen[str]) -> None:
    reader, table = MemoryReader(), ProcessTable.read()
    stat = table.stats[child.pid]
    child.kill()
    child.wait()
    assert reader.measure(table, [[stat], []]) == [0, 0]
    assert child.pid not in ProcessTable.read().stats


def test_shares_that_others_may_have_changed_are_renewed_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch, looked_at: list[int]
) -> None:
    monkeypatch.setattr(memory, "_KEPT_S", 0.0)
    own = read_stat(os.getpid())
    assert own
    # Made up, for nobody needs so many processes to see it; there is nothing to read of them.
    stats = [ProcessStat(pid, "x", "S", 1, 1, 1, 1, 0.0, 0, 0) for pid in range(2**22, 2**22 + 8)]
    reader, table = MemoryReader(), ProcessTable(stats)
    assert reader.measure(table, [stats]) == [0]
    assert len(looked_at) == 8
    reader.measure(table, [stats])
    assert len(looked_at) == 8 + memory._RENEWALS
