"""Evidence of Linux' out-of-memory killer, read from counters as cgroups of version 1 and 2 and machines without have them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jupyter_apptainer.instances.oom import OomRecord

V1 = "4:memory:/slurm/job_7\n1:cpu:/slurm/job_7\n0::/\n"
V2 = "0::/system.slice/slurmstepd.scope/job_7\n"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("cgroup", "counter", "content", "word"),
    [
        pytest.param(
            V1,
            "sys/fs/cgroup/memory/slurm/job_7/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n",
            "/slurm/job_7",
            id="v1",
        ),
        pytest.param(
            V2,
            "sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/memory.events",
            "low 0\nhigh 0\nmax 41\noom 3\noom_kill {}\noom_group_kill 0\n",
            "slurmstepd.scope/job_7",
            id="v2",
        ),
        pytest.param("", "proc/vmstat", "pgfault 99\noom_kill {}\n", "on this machine", id="machine"),
    ],
)
def test_only_what_was_counted_since_is_evidence(
    tmp_path: Path, cgroup: str, counter: str, content: str, word: str
) -> None:
    write(tmp_path / "proc/7/cgroup", cgroup)
    write(tmp_path / "proc/vmstat", "oom_kill 5\n")
    write(tmp_path / counter, content.format(2))
    record = OomRecord.note(7, root=tmp_path)
    assert record.explain() == ""
    write(tmp_path / counter, content.format(3))
    assert word in record.explain()
    (tmp_path / counter).unlink()
    assert record.explain() == "", "a cgroup that is gone tells nothing"


def test_this_machine_counts() -> None:
    record = OomRecord.note(os.getpid())
    assert record.path.exists()
    assert record.explain() == ""
