"""Where a path leads, for this process and for one with other mounts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_apptainer.instances.mounts import find_place

ODD = "a b\\c"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[int]:
    """A process for which `to` is `from`, and `from/hidden` something else."""
    for name in ("from/deep", "from/hidden", f"from/{ODD}", "to", "other"):
        (tmp_path / name).mkdir(parents=True)
    script = "mount --rbind from to && mount --rbind other from/hidden && echo ready && exec sleep 1000"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        process.kill()


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        pytest.param("to", "from", id="bound"),
        pytest.param("to/deep", "from/deep", id="below"),
        pytest.param(f"to/{ODD}", f"from/{ODD}", id="odd-characters"),
        pytest.param("from/deep", "from/deep", id="not-changed"),
        pytest.param("from/hidden", "other", id="covered"),
    ],
)
def test_the_same_folder_is_recognised(elsewhere: int, tmp_path: Path, inside: str, outside: str) -> None:
    place = find_place(elsewhere, str(tmp_path / inside))
    assert place is not None
    assert place == find_place("self", str(tmp_path / outside))


@pytest.mark.parametrize("path", ["to", "from/hidden", "to/deep"])
def test_another_folder_of_the_same_name_is_not(elsewhere: int, tmp_path: Path, path: str) -> None:
    assert find_place(elsewhere, str(tmp_path / path)) != find_place(os.getpid(), str(tmp_path / path))


def test_a_process_that_is_gone_tells_nothing() -> None:
    assert find_place(2**22, "/") is None
