"""The doctor's report on this machine, and what it says of things that were broken on purpose."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_apptainer.doctor import leftovers, run_doctor, smoke
from jupyter_apptainer.engine.command import Command, returns_nothing
from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.host import Probe
from jupyter_apptainer.engine.locate import EngineInfo, run_flags
from jupyter_apptainer.engine.runner import Runner
from jupyter_apptainer.instances import ledger
from jupyter_apptainer.instances.model import LedgerEntry
from jupyter_apptainer.instances.process import ProcessIdentity, read_children
from jupyter_apptainer.places import Places

ROOT = Path(__file__).resolve().parents[1]
# A child that is started in another way than by installing finds the package, and what the tests were given.
PYTHONPATH = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])


@pytest.fixture
def environ(engine: EngineInfo, tmp_path: Path) -> dict[str, str]:
    """Variables of a user whose engine keeps its files here."""
    return {**os.environ, "APPTAINER_CONFIGDIR": str(tmp_path / "config")}


def find_probe(probes: tuple[Probe, ...], name: str) -> Probe:
    (found,) = [probe for probe in probes if probe.name == name]
    return found


# --- the report


def test_report_on_a_machine_that_works(
    engine: EngineInfo, starter_image: Path, places: Places, environ: dict[str, str]
) -> None:
    report = run_doctor(engine.path, places, str(starter_image), environ=environ)
    assert [probe for probe in report.probes if probe.status == "fail"] == []
    assert report.status in ("ok", "warn")
    names = [probe.name for probe in report.probes]
    assert len(names) == len(set(names))
    assert names[0] == "engine"
    assert names[-1] == smoke.NAME
    trial = report.probes[-1]
    assert trial.status == "ok", trial
    assert str(starter_image) in trial.detail
    assert "import ipykernel" in trial.detail
    assert list(ledger.iter_entries(places)) == []
    assert list((Path(environ["APPTAINER_CONFIGDIR"]) / "instances").rglob("*.json")) == []


def test_every_problem_of_this_machine_comes_with_a_reason(
    engine: EngineInfo, places: Places, environ: dict[str, str]
) -> None:
    report = run_doctor(engine.path, places, environ=environ)
    assert all(probe.detail for probe in report.probes)
    assert [probe for probe in report.probes if "could not be checked" in probe.detail] == []


def test_report_without_an_engine(places: Places, tmp_path: Path) -> None:
    elsewhere = replace(places, data=tmp_path)
    report = run_doctor(None, elsewhere, environ={**os.environ, "PATH": str(tmp_path)})
    assert report.status == "fail"
    assert find_probe(report.probes, "engine").fix == "jupyter apptainer engine install"
    assert find_probe(report.probes, smoke.NAME).status == "fail"
    # The rest is looked at nevertheless.
    assert find_probe(report.probes, "user namespaces").status == "ok"


def test_report_with_a_wrong_setting(places: Places) -> None:
    report = run_doctor("/no/such/apptainer", places)
    probe = find_probe(report.probes, "engine")
    assert probe.status == "fail"
    assert "/no/such/apptainer" in probe.detail
    assert probe.fix


def test_report_from_within_an_event_loop(engine: EngineInfo, places: Places, environ: dict[str, str]) -> None:
    import asyncio

    async def call() -> str:
        return run_doctor(engine.path, places, "/no/such/image.sif", environ=environ).status

    assert asyncio.run(call()) == "fail"


@pytest.mark.parametrize("kind", ["missing", "junk", "empty folder"])
def test_image_that_does_not_start(
    engine: EngineInfo, places: Places, environ: dict[str, str], tmp_path: Path, kind: str
) -> None:
    image = tmp_path / "image"
    if kind == "junk":
        image.write_bytes(os.urandom(10_000))
    elif kind == "empty folder":
        image.mkdir()
    probe = run_doctor(engine.path, places, str(image), environ=environ).probes[-1]
    assert probe.status == "fail"
    assert str(image) in probe.detail
    assert probe.fix
    assert list(ledger.iter_entries(places)) == []


def test_no_image_to_try(
    engine: EngineInfo, places: Places, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    elsewhere = replace(places, data=tmp_path)
    if smoke.find_image(elsewhere, environ):
        pytest.skip("a kernel of all users has an image")
    probe = run_doctor(engine.path, elsewhere, environ=environ).probes[-1]
    assert (probe.status, probe.fix) == ("warn", "jupyter apptainer quickstart")


# --- leftovers


@pytest.fixture
def orphan(engine: EngineInfo, starter_image: Path, tmp_path: Path) -> Iterator[int]:
    """A squashfuse whose instance was killed the wrong way, as a careless `kill -9` does it."""
    env = build_engine_environment({**os.environ, "APPTAINER_CONFIGDIR": str(tmp_path / "config")})
    argv = (engine.path, "instance", "start", *run_flags(engine), str(starter_image), "jpa-test-orphan")
    Runner().run(Command(argv, env, returns_nothing, "start"))
    (path,) = (tmp_path / "config").rglob("jpa-test-orphan.json")
    record = json.loads(path.read_text())
    helpers = [pid for pid in read_children(record["ppid"]) if pid != record["pid"]]
    assert helpers, "this engine mounts images without a helper"
    os.kill(record["ppid"], signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.kill(record["pid"], signal.SIGKILL)
    for pid in (record["ppid"], record["pid"]):
        identity = ProcessIdentity.find(pid)
        assert identity is None or identity.wait_gone(10)
    yield helpers[0]
    for pid in helpers:
        identity = ProcessIdentity.find(pid)
        if identity is not None:
            identity.send_signal(signal.SIGTERM)
            assert identity.wait_gone(10)


def test_orphan_is_found_and_its_fix_works(orphan: int) -> None:
    probe = leftovers.probe_orphans()
    assert probe.status == "warn"
    assert f"({orphan})" in probe.detail
    command = str(probe.fix).split()
    assert command[0] == "kill"
    assert str(orphan) in command[1:]
    identity = ProcessIdentity.find(orphan)
    assert identity is not None
    os.kill(orphan, signal.SIGTERM)
    assert identity.wait_gone(10)
    assert orphan not in [stat.pid for stat in leftovers.find_orphans()]


def test_record_of_a_killed_instance_is_found(
    orphan: int, engine: EngineInfo, environ: dict[str, str], places: Places
) -> None:
    probe = leftovers.probe_records(engine, environ, places.hostname)
    assert probe.status == "warn"
    assert "jpa-test-orphan" in probe.detail
    subprocess.run(str(probe.fix).split(), env=environ, check=True, capture_output=True)
    assert leftovers.probe_records(engine, environ, places.hostname).status == "ok"


def test_running_instance_is_no_leftover(
    engine: EngineInfo, starter_image: Path, environ: dict[str, str], places: Places, tmp_path: Path
) -> None:
    env = build_engine_environment(environ)
    argv = (engine.path, "instance", "start", *run_flags(engine), str(starter_image), "jpa-test-alive")
    Runner().run(Command(argv, env, returns_nothing, "start"))
    (path,) = (tmp_path / "config").rglob("jpa-test-alive.json")
    record = json.loads(path.read_text())
    starter = ProcessIdentity.find(record["ppid"])
    assert starter is not None
    try:
        helpers = set(read_children(record["ppid"]))
        assert helpers.isdisjoint(stat.pid for stat in leftovers.find_orphans())
        assert leftovers.probe_records(engine, environ, places.hostname).status == "ok"
    finally:
        os.kill(record["pid"], signal.SIGKILL)
        assert starter.wait_gone(10)


def test_instance_of_ours_without_owner(places: Places, tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    entry = LedgerEntry(
        name="jpa-test-left",
        image="a.sif",
        owner=ProcessIdentity(ended.pid, 1),
        kernel_id="",
        label="",
        started_at=time.time(),
        record_dir=str(tmp_path),
        log_dir=str(tmp_path),
    )
    ledger.save_entry(places, entry)
    try:
        probe = leftovers.probe_own_instances(places)
        assert (probe.status, probe.fix) == ("warn", "jupyter apptainer gc")
        assert "jpa-test-left" in probe.detail
    finally:
        ledger.remove_entry(places, entry.name)


def test_old_temporary_folders_are_named_and_young_ones_are_not(engine: EngineInfo, tmp_path: Path) -> None:
    environ = {"APPTAINER_TMPDIR": str(tmp_path)}
    old, young = tmp_path / "build-temp-1", tmp_path / "rootfs-2"
    old.mkdir()
    young.mkdir()
    os.utime(old, (0, 0))
    probe = leftovers.probe_temporary_folders(engine, environ)
    assert probe.status == "warn"
    assert str(old) in probe.detail
    assert str(young) not in probe.detail
    # This machine's /tmp may hold others.
    assert re.search(rf"rm -rf .*{re.escape(str(old))}", str(probe.fix))
    assert old.exists()


# --- the command


def run_command(*words: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jupyter_apptainer.cli.main", "doctor", *words],
        env={**environ, "PYTHONPATH": PYTHONPATH},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_command_prints_json(starter_image: Path, environ: dict[str, str]) -> None:
    done = run_command("--json", "--image", str(starter_image), environ=environ)
    assert done.returncode == 0, done.stdout
    report = json.loads(done.stdout)
    assert report["status"] in ("ok", "warn")
    assert set(report["probes"][0]) == {"name", "status", "detail", "fix"}
    assert report["duration_s"] < 10


def test_command_prints_plain_lines_where_there_is_no_terminal(environ: dict[str, str]) -> None:
    done = run_command("--image", "/no/such.sif", environ=environ)
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ok    engine ") or lines[0].startswith("warn  engine ")
    (failed,) = [line for line in lines if line.startswith("fail")]
    assert "/no/such.sif" in failed
    assert "fix: " in lines[lines.index(failed) + 1]
    assert "1 failed" in done.stderr


def test_command_prints_colours_on_a_terminal(environ: dict[str, str]) -> None:
    variables = {key: value for key, value in environ.items() if key != "NO_COLOR"}
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyter_apptainer.cli.main", "doctor", "--image", "/no/such.sif"],
        env={**variables, "PYTHONPATH": PYTHONPATH, "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=subprocess.DEVNULL,
    )
    os.close(follower)
    shown = b""
    while select.select([leader], [], [], 60)[0]:
        try:
            shown += os.read(leader, 65536)
        except OSError:
            break
    os.close(leader)
    assert process.wait(10) == 1
    assert b"\x1b[31mfail" in shown
    assert b"\x1b[32mok" in shown
