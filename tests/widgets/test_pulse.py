"""Looks happen while somebody sees the panel, and not otherwise."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from jupyter_apptainer.widgets.front.pulse import Pulse

DEADLINE_S = 60


class Watched:
    """A pulse whose looks and rests can be waited for."""

    def __init__(self, pause_after_s: float = 3600.0, is_busy: Callable[[], bool] = lambda: False) -> None:
        self.looks = threading.Semaphore(0)
        self.rests = threading.Semaphore(0)
        self.pulse = Pulse(self.looks.release, self.rests.release, lambda: 0.001, pause_after_s, is_busy)

    def wait_look(self) -> None:
        assert self.looks.acquire(timeout=DEADLINE_S)

    def wait_rest(self) -> None:
        assert self.rests.acquire(timeout=DEADLINE_S)
        while self.looks.acquire(blocking=False):
            pass


@pytest.fixture(autouse=True)
def leaves_no_thread() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name == "jpa-panel":
            thread.join(DEADLINE_S)
            assert not thread.is_alive()


def test_it_looks_while_it_is_seen_and_rests_when_it_is_not() -> None:
    watched = Watched()
    assert not [thread for thread in threading.enumerate() if thread.name == "jpa-panel"]
    watched.pulse.set_seen(True)
    for _ in range(3):
        watched.wait_look()
    watched.pulse.set_seen(False)
    watched.wait_rest()
    assert not watched.looks.acquire(timeout=0.05)
    watched.pulse.set_seen(True)
    watched.wait_look()
    watched.pulse.close()


def test_it_pauses_when_nobody_touches_it_and_a_touch_wakes_it() -> None:
    watched = Watched(pause_after_s=0.05)
    watched.pulse.set_seen(True)
    watched.wait_look()
    watched.wait_rest()
    watched.pulse.touch()
    watched.wait_look()
    watched.pulse.close()


def test_it_goes_on_while_a_cell_runs() -> None:
    is_busy = threading.Event()
    is_busy.set()
    watched = Watched(pause_after_s=0.0, is_busy=is_busy.is_set)
    watched.pulse.set_seen(True)
    for _ in range(3):
        watched.wait_look()
    is_busy.clear()
    watched.wait_rest()
    watched.pulse.close()


def test_after_its_end_nothing_wakes_it() -> None:
    watched = Watched()
    watched.pulse.set_seen(True)
    watched.wait_look()
    watched.pulse.close()
    watched.wait_rest()
    watched.pulse.set_seen(True)
    watched.pulse.touch()
    assert not watched.looks.acquire(timeout=0.05)
