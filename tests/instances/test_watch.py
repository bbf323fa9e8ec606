"""Events: files that appear in a folder, processes that end, and waiting for either on a loop."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import threading
import time
from pathlib import Path

import pytest

from jupyter_apptainer.instances.watch import DirectoryWatch, wait_readable, watch_exit


def is_readable(descriptor: int, timeout_s: float = 0.0) -> bool:
    return bool(select.select([descriptor], [], [], timeout_s)[0])


def test_new_files_are_named(tmp_path: Path) -> None:
    with DirectoryWatch(str(tmp_path)) as watch:
        assert watch.drain() == []
        assert not is_readable(watch.fileno())
        (tmp_path / "ü one").write_text("x")
        (tmp_path / "other").write_text("x")
        assert is_readable(watch.fileno(), 5)
        assert {"ü one", "other"} == set(watch.drain())
        assert watch.drain() == []
        os.rename(tmp_path / "other", tmp_path / "moved")
        assert watch.drain() == ["moved"]


def test_a_file_that_was_there_before_makes_no_event(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("x")
    with DirectoryWatch(str(tmp_path)) as watch:
        assert watch.drain() == []


def test_more_events_than_one_read_holds_come_in_parts(tmp_path: Path) -> None:
    with DirectoryWatch(str(tmp_path)) as watch:
        names = {f"{number:04}{'x' * 200}" for number in range(500)}
        for name in names:
            (tmp_path / name).touch()
        seen: set[str] = set()
        while new := watch.drain():
            seen |= set(new)
    assert seen == names


def test_a_missing_folder_is_an_error_and_leaks_nothing(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError) as caught:
        DirectoryWatch(str(tmp_path / "gone"))
    assert caught.value.filename == str(tmp_path / "gone")
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_descriptor_is_closed_at_the_end(tmp_path: Path) -> None:
    with DirectoryWatch(str(tmp_path)) as watch:
        descriptor = watch.fileno()
    # By a thread, because Linux takes its time.
    for thread in [thread for thread in threading.enumerate() if thread.name == "close-watch"]:
        thread.join(10.0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_the_end_of_a_process_is_an_event() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process, watch_exit(process.pid) as descriptor:
        assert not is_readable(descriptor)
        process.kill()
        assert is_readable(descriptor, 5)


def test_a_process_that_is_gone_has_no_descriptor() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    with watch_exit(process.pid) as descriptor:
        assert descriptor == -1


def test_waiting_on_a_loop_ends_with_an_event(tmp_path: Path) -> None:
    async def main() -> bool:
        with DirectoryWatch(str(tmp_path)) as watch:
            asyncio.get_running_loop().call_later(0.05, (tmp_path / "file").touch)
            return await wait_readable([watch.fileno()], 10)

    assert asyncio.run(main())


def test_waiting_on_a_loop_ends_at_the_deadline_and_lets_others_work(tmp_path: Path) -> None:
    async def main() -> tuple[bool, int]:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        task = asyncio.ensure_future(count())
        with DirectoryWatch(str(tmp_path)) as watch:
            result = await wait_readable([watch.fileno()], 0.1)
        task.cancel()
        return result, turns

    result, turns = asyncio.run(main())
    assert result is False
    assert turns > 10


def test_without_an_event_source_the_wait_is_short() -> None:
    started = time.monotonic()
    assert asyncio.run(wait_readable([-1], 10)) is False
    assert time.monotonic() - started < 1


def test_a_cancelled_wait_leaves_no_reader_behind(tmp_path: Path) -> None:
    async def main() -> bool:
        with DirectoryWatch(str(tmp_path)) as watch:
            task = asyncio.ensure_future(wait_readable([watch.fileno()], 10))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return asyncio.get_running_loop().remove_reader(watch.fileno())

    assert asyncio.run(main()) is False
