"""What a word becomes before anything runs."""

from __future__ import annotations

import pytest

from jupyter_apptainer.errors import SpecError
from jupyter_apptainer.magics.host import build_restart
from jupyter_apptainer.magics.model import Request


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("restart", "kernel restart 1f3c"),
        ("restart --image lab.sif --nv true", "kernel restart 1f3c --image lab.sif --nv true"),
        ("bind data /srv/x:/x:ro", "kernel restart 1f3c --later --bind data --bind /srv/x:/x:ro"),
    ],
)
def test_a_container_kernel_restarts_itself(line: str, command: str) -> None:
    assert " ".join(build_restart(Request(tuple(line.split()), kernel="1f3c"))) == command


@pytest.mark.parametrize(("line", "kernel"), [("restart", ""), ("bind data", ""), ("bind", "1f3c")])
def test_a_kernel_on_the_host_has_no_container_to_restart_in(line: str, kernel: str) -> None:
    with pytest.raises(SpecError):
        build_restart(Request(tuple(line.split()), kernel=kernel))
