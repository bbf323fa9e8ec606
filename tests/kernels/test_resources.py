"""In which way limits hold, by what the machine offers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jupyter_apptainer.kernels.limits import running_on
from jupyter_apptainer.kernels.resources import (
    NO_LIMITS,
    Host,
    choose_processors,
    format_size,
    plan_resources,
)
from jupyter_apptainer.kernels.wishes import UNLIMITED, ResourcesWish

WISH = ResourcesWish(cpus=2, memory_bytes=4 << 30, pids=512)


def test_without_a_wish_nothing_is_limited() -> None:
    assert plan_resources(UNLIMITED, Host((0, 1), ""), "a") == NO_LIMITS


@pytest.mark.parametrize(
    ("host", "is_cgroup_used", "is_rlimit_used", "words"),
    [
        pytest.param(Host((0, 1, 2), ""), True, False, ["pids 512: in the cgroup"], id="cgroup"),
        pytest.param(
            Host((0, 1, 2), "no bus", counts_container_tasks=True),
            False,
            True,
            ["no cgroup for this kernel: no bus", "pids 512: RLIMIT_NPROC"],
            id="user-without",
        ),
        pytest.param(Host((0, 1, 2), "no bus"), False, False, ["pids 512: counted from outside"], id="root-without"),
    ],
)
def test_the_way_is_what_the_machine_offers(
    host: Host, is_cgroup_used: bool, is_rlimit_used: bool, words: list[str]
) -> None:
    found = plan_resources(WISH, host, "a")
    assert (found.is_cgroup_used, found.is_rlimit_used) == (is_cgroup_used, is_rlimit_used)
    text = "\n".join(found.notes)
    assert "memory 4 GiB: watched from outside; a warning at 3.6 GiB" in text
    assert not [word for word in words if word not in text]


@pytest.mark.parametrize(
    ("available", "cpus", "count"),
    [
        pytest.param(range(8), 2, 2, id="some"),
        pytest.param(range(8), 0.5, 1, id="half"),
        pytest.param(range(8), 2.5, 3, id="rounded-up"),
        pytest.param([3, 9, 17], 2, 2, id="odd-numbers"),
        pytest.param(range(8), 8, 0, id="all"),
        pytest.param(range(2), 64, 0, id="more-than-there-are"),
        pytest.param(range(8), None, 0, id="no-wish"),
    ],
)
def test_processors_are_whole_and_of_those_that_may_be_used(available: list[int], cpus: float, count: int) -> None:
    chosen = choose_processors(tuple(available), cpus, "jpa-1")
    assert len(chosen) == len(set(chosen)) == count
    assert set(chosen) <= set(available)


def test_kernels_do_not_all_get_the_same_processors() -> None:
    assert len({choose_processors(range(64), 4, f"jpa-kernel-{number:08x}") for number in range(40)}) > 8


@pytest.mark.parametrize(
    ("size", "text"), [(400 << 20, "400 MiB"), (4 << 30, "4 GiB"), (3865470566, "3.6 GiB"), (2 << 40, "2 TiB")]
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_size(size) == text


def test_programs_started_meanwhile_keep_to_the_processors_and_we_do_not() -> None:
    before = os.sched_getaffinity(0)
    one = min(before)
    with running_on([one]):
        shown = subprocess.run(
            [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"], capture_output=True, text=True
        )
    assert shown.stdout.strip() == str({one})
    assert os.sched_getaffinity(0) == before
