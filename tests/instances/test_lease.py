"""Leases of kernels whose owner is gone, and the keeper that enforces them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_apptainer.instances import keeper
from jupyter_apptainer.instances.lease import can_be_claimed, claim, find_end, note_orphan
from jupyter_apptainer.instances.ledger import load_entry, save_entry
from jupyter_apptainer.instances.model import Instance, LedgerEntry
from jupyter_apptainer.instances.process import ProcessIdentity, read_memory
from jupyter_apptainer.places import Places, find_places

GONE = ProcessIdentity(2**22, 1)


@pytest.fixture
def own(tmp_path: Path) -> Places:
    """A ledger of this test alone."""
    return find_places({"HOME": str(tmp_path), "JUPYTER_APPTAINER_HOME": str(tmp_path / "h")})


@pytest.fixture
def kernel() -> Iterator[ProcessIdentity]:
    """A process that runs."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        found = ProcessIdentity.find(process.pid)
        assert found is not None
        yield found
        process.kill()


@pytest.fixture
def entry(kernel: ProcessIdentity) -> LedgerEntry:
    """A running kernel without an owner, that may go on for an hour."""
    instance = Instance("jpa-1", "/i.sif", kernel, kernel, 1, 1, "/r", ("/o", "/e"))
    return LedgerEntry(
        name="jpa-1",
        image="/i.sif",
        owner=GONE,
        kernel_id="1f3c",
        label="",
        started_at=1.0,
        record_dir="/r",
        log_dir="/l",
        instance=instance,
        process=kernel,
        persist=3600,
    )


@pytest.mark.parametrize(
    ("persist", "orphaned_s_ago", "reason"),
    [
        pytest.param(False, None, "is gone", id="does-not-persist"),
        pytest.param(True, 10**9, None, id="for-ever"),
        pytest.param(3600, None, None, id="not-noticed-yet"),
        pytest.param(3600, 3599, None, id="just-within"),
        pytest.param(3600, 3601, "its lease is over", id="over"),
    ],
)
def test_how_long_a_kernel_may_wait(
    entry: LedgerEntry, persist: bool | int, orphaned_s_ago: float | None, reason: str | None
) -> None:
    now = time.time()
    orphaned_at = None if orphaned_s_ago is None else now - orphaned_s_ago
    found = find_end(replace(entry, persist=persist, orphaned_at=orphaned_at), now)
    assert found is None if reason is None else reason in str(found)


def test_a_kernel_that_has_ended_waits_for_nobody(entry: LedgerEntry) -> None:
    assert can_be_claimed(entry)
    assert not can_be_claimed(replace(entry, process=GONE))
    assert not can_be_claimed(replace(entry, owner=ProcessIdentity.current()))


def test_only_one_can_claim_a_kernel(own: Places, entry: LedgerEntry) -> None:
    save_entry(own, replace(entry, orphaned_at=5.0))
    claimed = claim(own, "jpa-1")
    assert claimed == replace(entry, owner=ProcessIdentity.current(), orphaned_at=None)
    assert load_entry(own, "jpa-1") == claimed
    assert claim(own, "jpa-1") is None
    assert claim(own, "jpa-2") is None


def test_the_lease_counts_from_when_the_end_was_noticed_first(own: Places, entry: LedgerEntry) -> None:
    save_entry(own, entry)
    first = note_orphan(own, entry)
    assert first.orphaned_at is not None
    assert note_orphan(own, entry) == first == load_entry(own, "jpa-1")


# --- the keeper


def test_the_keeper_goes_with_the_last_kernel_and_costs_little() -> None:
    found = keeper.hold("jpa-a")
    assert keeper.hold("jpa-b") == found
    keeper.release("jpa-a")
    assert found.is_alive()
    memory = read_memory(found.pid)
    assert memory is not None
    assert memory < 2_000_000
    keeper.release("jpa-b")
    assert not found.is_alive()


def test_a_keeper_that_was_killed_is_replaced() -> None:
    first = keeper.hold("jpa-a")
    first.send_signal(signal.SIGKILL)
    assert first.wait_gone(5)
    second = keeper.hold("jpa-b")
    assert second.is_alive()
    for name in ("jpa-a", "jpa-b"):
        keeper.release(name)
    assert not second.is_alive()


def test_a_forked_child_does_not_keep_the_pipe_open() -> None:
    code = (
        "import os, signal\n"
        "from jupyter_apptainer.instances import keeper\n"
        "found = keeper.hold('jpa-a')\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os.close(1)\n"
        "    signal.pause()\n"
        "print(found.pid, found.start_ticks, child, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    pid, start_ticks, child = map(int, done.stdout.split())
    try:
        assert ProcessIdentity(pid, start_ticks).wait_gone(20)
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.fixture
def script(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The keeper's shell with a sweep that writes a line to a pipe each time and finds that another hour may pass."""
    sweep = tmp_path / "sweep"
    sweep.write_text("#!/bin/sh\necho swept > fifo\necho 3600\n")
    sweep.chmod(0o700)
    os.mkfifo(tmp_path / "fifo")
    shell = subprocess.Popen(
        ["/bin/sh", Path(keeper.__file__).with_name("keeper.sh"), sweep],
        stdin=subprocess.PIPE,
        cwd=tmp_path,
        start_new_session=True,
    )
    yield shell
    os.killpg(shell.pid, signal.SIGKILL)
    shell.communicate()


def test_the_keeper_sweeps_at_the_end_and_again_when_asked(script: subprocess.Popen[bytes], tmp_path: Path) -> None:
    assert script.stdin is not None
    script.stdin.close()
    assert (tmp_path / "fifo").read_text() == "swept\n"
    script.send_signal(signal.SIGTERM)
    assert (tmp_path / "fifo").read_text() == "swept\n"
