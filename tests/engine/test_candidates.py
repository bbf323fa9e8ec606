"""Which engine is chosen, and what is said about the others. Stand-ins are old or broken engines, which nobody can install."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from jupyter_apptainer.engine.candidates import list_candidates
from jupyter_apptainer.engine.locate import EngineInfo, find_engine
from jupyter_apptainer.engine.lock import hold_lock
from jupyter_apptainer.places import Places


def make_engine(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'#!/bin/sh\nif [ "$1" = --version ]; then echo "apptainer version {version}"; else echo LIBEXECDIR=/x; fi\n'
    )
    path.chmod(0o755)
    return path


@pytest.fixture
def own_places(tmp_path: Path) -> Places:
    return Places(tmp_path / "data", tmp_path / "cache", tmp_path / "run", tmp_path / "tmp", "here")


def explain(places: Places, path: Path, configured: str | None = None) -> list[tuple[str, bool, str]]:
    found = list_candidates(configured, environ={"PATH": f"{path}:/usr/bin:/bin"}, places=places)
    return [(each.origin, each.is_chosen, each.reason) for each in found if each.path.startswith(str(path.parent))]


def test_first_on_path_is_chosen(own_places: Places, tmp_path: Path) -> None:
    make_engine(tmp_path / "bin" / "apptainer", "1.4.5")
    make_engine(own_places.engine_prefix / "bin" / "apptainer", "1.4.5")
    assert explain(own_places, tmp_path / "bin") == [
        ("PATH", True, "the first on PATH"),
        ("own prefix", False, "PATH comes first"),
    ]


def test_old_one_on_path_gives_way_to_our_own(own_places: Places, tmp_path: Path) -> None:
    make_engine(tmp_path / "bin" / "apptainer", "1.1.9")
    own = make_engine(own_places.engine_prefix / "bin" / "apptainer", "1.4.5")
    environ = {"PATH": f"{tmp_path / 'bin'}:/bin:/usr/bin"}
    rows = explain(own_places, tmp_path / "bin")
    assert rows[0] == ("PATH", False, "too old")
    assert rows[1][:2] == ("own prefix", True)
    found = find_engine(environ=environ, places=own_places)
    assert found is not None
    assert found.path == str(own)


def test_old_one_is_chosen_where_there_is_no_other(own_places: Places, tmp_path: Path) -> None:
    make_engine(tmp_path / "bin" / "apptainer", "1.1.9")
    assert explain(own_places, tmp_path / "bin") == [("PATH", True, "the first on PATH, but too old")]


def test_configured_one_comes_first(own_places: Places, tmp_path: Path) -> None:
    make_engine(tmp_path / "bin" / "apptainer", "1.4.5")
    chosen = make_engine(tmp_path / "other" / "apptainer", "1.3.0")
    rows = explain(own_places, tmp_path / "bin", str(chosen))
    assert rows == [("configured", True, "named in the configuration"), ("PATH", False, "configured comes first")]


def test_broken_one_is_shown_with_what_it_says(own_places: Places, tmp_path: Path) -> None:
    broken = tmp_path / "bin" / "apptainer"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    ((_, is_chosen, reason),) = explain(own_places, tmp_path / "bin")
    assert not is_chosen
    assert reason.startswith("does not work")


def test_places_without_an_engine_are_named(own_places: Places) -> None:
    found = list_candidates(environ={"PATH": "/nowhere"}, places=own_places)
    assert [each.reason for each in found] == [
        "apptainer: no program of this name on PATH",
        "singularity: no program of this name on PATH",
        f"{own_places.engine_prefix}/bin/apptainer: no program there",
    ]


def test_real_engine_is_among_the_candidates(engine: EngineInfo) -> None:
    assert [each.path for each in list_candidates() if each.is_chosen] == [engine.path]


def test_lock_lets_one_in_at_a_time_and_says_that_it_waits(tmp_path: Path) -> None:
    waits, entered = threading.Event(), threading.Event()

    def enter() -> None:
        with hold_lock(tmp_path / "locks" / "one", on_wait=waits.set):
            entered.set()

    thread = threading.Thread(target=enter, daemon=True)
    with hold_lock(tmp_path / "locks" / "one"):
        thread.start()
        assert waits.wait(10)
        assert not entered.is_set()
    thread.join(10)
    assert entered.is_set()
