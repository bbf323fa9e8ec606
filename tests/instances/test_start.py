"""Starting real instances: joined at once, explained when they fail, and nothing left of those that did."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.options import (
    ContainerOptions,
    build_exec,
    build_instance_list,
    build_instance_start,
)
from jupyter_apptainer.engine.runner import Runner, spawn
from jupyter_apptainer.errors import ApptainerError, CommandTimeout, EngineNotFound
from jupyter_apptainer.instances.janitor import end_entry, stop_instance
from jupyter_apptainer.instances.ledger import iter_entries, load_entry
from jupyter_apptainer.instances.model import LedgerEntry
from jupyter_apptainer.instances.process import ProcessIdentity, read_children
from jupyter_apptainer.instances.start import (
    StartedInstance,
    find_engine_folders,
    is_healthy,
    reap,
    start_instance,
)
from jupyter_apptainer.instances.stats import iter_members, read_stats
from jupyter_apptainer.places import Places

# Instances of other runs on this machine are not counted.
PREFIX = f"jpa-{secrets.token_hex(3)}-"


def build_entry(engine: EngineInfo, image: str, places: Places, folder: Path) -> LedgerEntry:
    folders = find_engine_folders(engine, os.environ, places.hostname)
    return LedgerEntry(
        name=PREFIX + secrets.token_hex(4),
        image=image,
        owner=ProcessIdentity.current(),
        kernel_id="k",
        label="a test",
        started_at=time.time(),
        record_dir=folders.record_dir,
        log_dir=folders.log_dir,
        directories=(str(folder),),
    )


def start(
    engine: EngineInfo, image: Path | str, places: Places, tmp_path: Path, timeout_s: float = 60
) -> StartedInstance:
    """Start one as a kernel's start does."""
    folder = tmp_path / "own"
    folder.mkdir(exist_ok=True)
    entry = build_entry(engine, str(image), places, folder)
    env = build_engine_environment(os.environ)
    command = build_instance_start(engine, str(image), entry.name, ContainerOptions(), env)
    return asyncio.run(
        start_instance(command, entry, places, log_path=str(tmp_path / "engine.log"), timeout_s=timeout_s)
    )


@pytest.fixture
def started(engine: EngineInfo, starter_image: Path, places: Places, tmp_path: Path) -> Iterator[StartedInstance]:
    found = start(engine, starter_image, places, tmp_path)
    yield found
    asyncio.run(reap(found.process))
    entry = load_entry(places, found.instance.name)
    if entry:
        assert end_entry(places, entry)


def list_names(engine: EngineInfo) -> list[str]:
    return [row.name for row in Runner().run(build_instance_list(engine, build_engine_environment(os.environ)))]


def assert_nothing_left(engine: EngineInfo, places: Places, tmp_path: Path) -> None:
    assert list(iter_entries(places)) == []
    assert not (tmp_path / "own").exists()
    folders = find_engine_folders(engine, os.environ, places.hostname)
    for folder in (folders.record_dir, folders.log_dir):
        assert not list(Path(folder).glob(PREFIX + "*"))
    assert not [name for name in list_names(engine) if name.startswith(PREFIX)]


# The fixture `leaves_no_trace` looks for processes after each of these.


def test_an_instance_can_be_joined_at_once(engine: EngineInfo, started: StartedInstance) -> None:
    env = build_engine_environment(os.environ)
    command = build_exec(engine, f"instance://{started.instance.name}", ["echo", "inside"], env, timeout_s=60)
    assert Runner().run(command).stdout == "inside\n"


def test_what_is_known_of_it_is_true(engine: EngineInfo, started: StartedInstance, places: Places) -> None:
    instance = started.instance
    assert instance.name in list_names(engine)
    assert is_healthy(instance)
    assert instance.init.is_alive()
    assert os.stat(f"/proc/{instance.init.pid}/ns/pid").st_ino == instance.pid_namespace
    assert instance.pid_namespace != os.stat("/proc/self/ns/pid").st_ino
    assert Path(instance.record_path).is_file()
    entry = load_entry(places, instance.name)
    assert entry is not None
    assert entry.instance == instance


def test_the_log_of_the_start_is_for_us_alone(started: StartedInstance, tmp_path: Path) -> None:
    assert (tmp_path / "engine.log").stat().st_mode & 0o777 == 0o600


def test_the_engines_program_ends_by_itself(started: StartedInstance) -> None:
    asyncio.run(reap(started.process))
    assert started.process.returncode == 0


def test_statistics_count_what_is_in_the_namespace(engine: EngineInfo, started: StartedInstance) -> None:
    before = read_stats(started.instance)
    assert started.instance.init.pid in {stat.pid for stat in iter_members(started.instance)}
    code = (
        "import signal\ndata = bytearray(b'x') * (64 * 1024 * 1024)\nsum(range(2_000_000))\n"
        "print('ready', flush=True)\nsignal.pause()"
    )
    env = build_engine_environment(os.environ)
    command = build_exec(engine, f"instance://{started.instance.name}", ["python3", "-S", "-c", code], env)
    reading, writing = os.pipe()
    process = spawn(command, stdout=writing)
    os.close(writing)
    try:
        with os.fdopen(reading) as stream:
            assert stream.readline() == "ready\n"
            during = read_stats(started.instance)
            members = {stat.pid for stat in iter_members(started.instance)}
            joined = set(read_children(process.pid))
    finally:
        process.kill()
        process.wait()
    # Joined early, the instance may still be at its start script: how many there were before is nobody's promise.
    assert len(joined) == 1
    assert joined | {started.instance.init.pid} <= members
    assert during.processes >= 2
    assert during.memory_bytes - before.memory_bytes > 60 * 1024 * 1024
    assert during.cpu_s > before.cpu_s


def test_of_an_ended_instance_nothing_is_left(
    engine: EngineInfo, started: StartedInstance, places: Places, tmp_path: Path
) -> None:
    entry = load_entry(places, started.instance.name)
    assert entry is not None
    asyncio.run(reap(started.process))
    assert end_entry(places, entry)
    assert not is_healthy(started.instance)
    assert read_stats(started.instance).processes == 0
    assert_nothing_left(engine, places, tmp_path)
    assert stop_instance(places, started.instance), "stopping one that is gone is success"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(None, "image-not-found", id="missing"),
        pytest.param(b"no image at all", "image-invalid", id="no-image"),
        pytest.param(b"half", "image-corrupt", id="cut-short"),
    ],
)
def test_an_image_that_fails_is_explained_and_leaves_nothing(
    engine: EngineInfo, starter_image: Path, places: Places, tmp_path: Path, content: bytes | None, code: str
) -> None:
    image = tmp_path / "image.sif"
    if content == b"half":
        with starter_image.open("rb") as stream:
            image.write_bytes(stream.read(1 << 20))
    elif content is not None:
        image.write_bytes(content)
    with pytest.raises(ApptainerError) as caught:
        start(engine, image, places, tmp_path)
    assert caught.value.code == code, caught.value.render()
    assert caught.value.command
    assert_nothing_left(engine, places, tmp_path)


def test_a_start_that_takes_too_long_is_given_up(
    engine: EngineInfo, starter_image: Path, places: Places, tmp_path: Path
) -> None:
    with pytest.raises(CommandTimeout, match="nothing came up"):
        start(engine, starter_image, places, tmp_path, timeout_s=0.0)
    assert_nothing_left(engine, places, tmp_path)


def test_an_engine_that_is_gone_leaves_nothing(engine: EngineInfo, places: Places, tmp_path: Path) -> None:
    with pytest.raises(EngineNotFound):
        start(replace(engine, path=str(tmp_path / "gone")), "/i.sif", places, tmp_path)
    assert_nothing_left(engine, places, tmp_path)


@pytest.mark.parametrize(
    ("flavour", "environ", "base"),
    [
        ("apptainer", {"HOME": "/h"}, "/h/.apptainer"),
        ("apptainer", {"HOME": "/h", "APPTAINER_CONFIGDIR": "/c"}, "/c"),
        ("singularity-ce", {"HOME": "/h", "APPTAINER_CONFIGDIR": "/c"}, "/h/.singularity"),
        ("singularity-ce", {"HOME": "/h", "SINGULARITY_CONFIGDIR": "/c"}, "/c"),
    ],
)
def test_folders_of_the_engine(engine: EngineInfo, flavour: str, environ: dict[str, str], base: str) -> None:
    found = find_engine_folders(replace(engine, flavour=flavour), environ, "node1")  # type: ignore[arg-type]  # from the table
    user = Path(found.record_dir).name
    assert found.record_dir == f"{base}/instances/app/node1/{user}"
    assert found.log_dir == f"{base}/instances/logs/node1/{user}"
