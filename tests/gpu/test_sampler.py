"""One sampler for all who look."""

from __future__ import annotations

import queue
import threading

from jupyter_apptainer.gpu import GpuReport, Sampler, find_sampler
from jupyter_apptainer.gpu.sampler import HISTORY
from tests.gpu.world import World, make_card

DEADLINE_S = 60


def find_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "jpa-gpu"]


def test_two_viewers_share_one_thread_and_none_leaves_none(world: World) -> None:
    world.show(make_card(0))
    sampler = Sampler(interval_s=0.01)
    first: queue.Queue[GpuReport] = queue.Queue()
    second: queue.Queue[GpuReport] = queue.Queue()
    assert not sampler.is_running
    with sampler.watch(first.put):
        viewer = sampler.watch(second.put)
        seen = {id(first.get(timeout=DEADLINE_S)) for _ in range(20)}
        assert id(second.get(timeout=DEADLINE_S)) in seen | {id(first.get(timeout=DEADLINE_S)) for _ in range(20)}
        (thread,) = find_threads()
        viewer.close()
        viewer.close()
        assert sampler.is_running
    assert not sampler.is_running
    thread.join(DEADLINE_S)
    assert not find_threads()


def test_history_is_kept_for_a_while_and_survives_a_pause(world: World) -> None:
    world.show(make_card(0, utilisation=11))
    sampler = Sampler(interval_s=0.001)
    reports: queue.Queue[GpuReport] = queue.Queue()
    with sampler.watch(reports.put):
        device = reports.get(timeout=DEADLINE_S).devices[0]
        for _ in range(HISTORY + 5):
            reports.get(timeout=DEADLINE_S)
    before = sampler.get_history(device)
    assert len(before) == HISTORY
    assert before[-1].utilisation_percent == 11
    world.show(make_card(0, utilisation=22))
    with sampler.watch(reports.put):
        while reports.get(timeout=DEADLINE_S).devices[0].utilisation_percent != 22:
            pass
    shares = [sample.utilisation_percent for sample in sampler.get_history(device)]
    assert shares[0] == 11
    assert shares[-1] == 22


def test_a_viewer_may_leave_from_its_own_report(world: World) -> None:
    world.show(make_card(0))
    sampler = Sampler(interval_s=0.001)
    is_known, is_closed = threading.Event(), threading.Event()

    def leave(_: GpuReport) -> None:
        is_known.wait(DEADLINE_S)
        viewer.close()
        is_closed.set()

    viewer = sampler.watch(leave)
    is_known.set()
    assert is_closed.wait(DEADLINE_S)
    assert not sampler.is_running


def test_all_of_a_process_share_one() -> None:
    assert find_sampler() is find_sampler()
