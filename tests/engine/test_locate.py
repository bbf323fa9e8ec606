"""Finding the engine: the order of places, what it says of itself, and that it is asked only once."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_apptainer.engine import locate
from jupyter_apptainer.engine.candidates import list_candidates
from jupyter_apptainer.engine.command import Completed
from jupyter_apptainer.engine.locate import (
    Capabilities,
    EngineInfo,
    Flavour,
    build_flags,
    find_engine,
    get_engine,
    load_capabilities,
    parse_buildcfg,
    parse_version,
    run_flags,
)
from jupyter_apptainer.errors import EngineNotFound, EngineOutputError
from jupyter_apptainer.places import Places, find_places


def install(folder: Path, name: str = "apptainer", version: str = "apptainer version 1.4.5", setuid: int = 0) -> Path:
    """A program that answers as an engine does and writes down each time that it is started."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    prefix = "APPTAINER" if "apptainer" in version else "SINGULARITY"
    path.write_text(
        "#!/bin/sh\n"
        f'echo "$*" >> {folder}/{name}.calls\n'
        'case "$1" in\n'
        f"--version) echo '{version}' ;;\n"
        f"buildcfg) echo {prefix}_CONF_FILE=/etc/e.conf; echo {prefix}_SUID_INSTALL={setuid}; echo LIBEXECDIR=/l ;;\n"
        "esac\n"
    )
    path.chmod(0o755)
    return path


def read_calls(path: Path) -> list[str]:
    calls = path.with_name(path.name + ".calls")
    return calls.read_text().splitlines() if calls.exists() else []


class Machine:
    """A PATH of one folder and a home of its own."""

    def __init__(self, root: Path) -> None:
        self.path = root / "bin"
        self.path.mkdir()
        self.environ = {"PATH": str(self.path), "HOME": str(root / "home"), "JUPYTER_APPTAINER_HOME": str(root / "own")}
        self.places: Places = find_places(self.environ)

    def find(self, configured: str | None = None) -> EngineInfo | None:
        return find_engine(configured, environ=self.environ, places=self.places)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# --- order


def test_a_machine_without_an_engine(machine: Machine) -> None:
    assert machine.find() is None
    with pytest.raises(EngineNotFound, match="no apptainer or singularity") as caught:
        get_engine(environ=machine.environ, places=machine.places)
    assert caught.value.hint
    assert "engine install" in caught.value.hint


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        pytest.param({"configured", "apptainer", "singularity", "own"}, "configured", id="configured-first"),
        pytest.param({"apptainer", "singularity", "own"}, "apptainer", id="path-before-own"),
        pytest.param({"singularity", "own"}, "singularity", id="singularity-on-path-before-own"),
        pytest.param({"own"}, "own", id="own"),
    ],
)
def test_order_of_places(machine: Machine, tmp_path: Path, there: set[str], expected: str) -> None:
    paths = {
        "configured": tmp_path / "opt",
        "apptainer": machine.path,
        "singularity": machine.path,
        "own": machine.places.engine_prefix / "bin",
    }
    names = {"singularity": "singularity"}
    version = {"singularity": "singularity-ce version 4.3.0"}
    for key in there:
        install(paths[key], names.get(key, "apptainer"), version.get(key, "apptainer version 1.4.5"))
    configured = str(tmp_path / "opt" / "apptainer") if "configured" in there else None
    found = machine.find(configured)
    assert found is not None
    assert found.path == str(paths[expected] / names.get(expected, "apptainer"))
    origin = {"configured": "configured", "own": "own prefix"}.get(expected, "PATH")
    assert found.origin == origin
    chosen = [c for c in list_candidates(configured, environ=machine.environ, places=machine.places) if c.is_chosen]
    assert [(c.path, c.origin) for c in chosen] == [(found.path, found.origin)]


def test_one_on_path_that_is_too_old_comes_last(machine: Machine) -> None:
    install(machine.path, version="apptainer version 1.1.9")
    own = install(machine.places.engine_prefix / "bin")
    found = machine.find()
    assert found is not None
    assert found.path == str(own)


def test_an_old_one_is_better_than_none(machine: Machine) -> None:
    old = install(machine.path, "singularity", "singularity version 3.8.7")
    found = machine.find()
    assert found is not None
    assert (found.path, found.is_too_old) == (str(old), True)


@pytest.mark.parametrize("content", [None, "no program"], ids=["nothing-there", "not-executable"])
def test_a_wrong_setting_is_no_reason_to_look_elsewhere(machine: Machine, tmp_path: Path, content: str | None) -> None:
    install(machine.path)
    wrong = tmp_path / "wrong"
    if content:
        wrong.write_text(content)
    with pytest.raises(EngineNotFound, match="is not a program") as caught:
        machine.find(str(wrong))
    assert str(wrong) in caught.value.message
    assert "engine_path" in (caught.value.hint or "")


def test_a_setting_may_be_a_name_on_path(machine: Machine) -> None:
    path = install(machine.path, "apptainer-next")
    found = machine.find("apptainer-next")
    assert found is not None
    assert found.path == str(path)


# --- asked once


def test_the_same_file_is_asked_once(machine: Machine) -> None:
    path = install(machine.path)
    first = machine.find()
    assert read_calls(path) == ["--version", "buildcfg"]
    assert machine.find() == first
    assert read_calls(path) == ["--version", "buildcfg"]


def test_a_changed_file_is_asked_again(machine: Machine) -> None:
    path = install(machine.path)
    machine.find()
    install(machine.path, version="apptainer version 1.5.0")
    found = machine.find()
    assert found is not None
    assert found.version == (1, 5, 0)
    assert len(read_calls(path)) == 4
    assert len(json.loads((machine.places.probes / "engines.json").read_text())) == 1


def test_the_answer_is_kept_for_the_file_and_not_for_its_name(machine: Machine, tmp_path: Path) -> None:
    path = install(machine.path)
    machine.find()
    link = tmp_path / "link"
    link.symlink_to(path)
    found = machine.find(str(link))
    assert found is not None
    assert (found.path, found.origin) == (str(link), "configured")
    assert len(read_calls(path)) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": 1}'], ids=["empty", "cut-short", "list", "other"])
def test_a_broken_cache_only_costs_time(machine: Machine, content: str) -> None:
    path = install(machine.path)
    machine.find()
    cache = machine.places.probes / "engines.json"
    cache.write_text(content)
    assert machine.find() is not None
    assert len(read_calls(path)) == 4
    assert cache.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("record", [{"version": "?"}, {"version": [1, 4, 5]}, None, "text"])
def test_a_broken_record_for_this_very_file_only_costs_time(machine: Machine, record: object) -> None:
    install(machine.path)
    machine.find()
    cache = machine.places.probes / "engines.json"
    known = json.loads(cache.read_text())
    cache.write_text(json.dumps(dict.fromkeys(known, record)))
    found = machine.find()
    assert found is not None
    assert found.version == (1, 4, 5)


def test_a_cache_that_cannot_be_written_only_costs_time(machine: Machine) -> None:
    path = install(machine.path)
    machine.places.cache.parent.mkdir(parents=True)
    machine.places.cache.write_text("a file where the folder should be")
    assert machine.find() is not None
    assert machine.find() is not None
    assert len(read_calls(path)) == 4


# --- what it says of itself


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("apptainer version 1.4.5", ("apptainer", (1, 4, 5), "1.4.5"), id="apptainer"),
        pytest.param(
            "apptainer version 1.4.5-1.el9\n", ("apptainer", (1, 4, 5), "1.4.5-1.el9"), id="apptainer-package"
        ),
        pytest.param("apptainer version 1.5.0-rc.1", ("apptainer", (1, 5, 0), "1.5.0-rc.1"), id="candidate"),
        pytest.param("singularity-ce version 4.3.0-1", ("singularity-ce", (4, 3, 0), "4.3.0-1"), id="singularity-ce"),
        pytest.param("singularity version 3.8.7", ("singularity", (3, 8, 7), "3.8.7"), id="singularity"),
        pytest.param("singularity-ce version v4.1", ("singularity-ce", (4, 1, 0), "v4.1"), id="two-numbers"),
    ],
)
def test_versions_of_the_three_flavours(text: str, expected: tuple[str, tuple[int, int, int], str]) -> None:
    assert parse_version(Completed(("e",), 0, text, "")) == expected


@pytest.mark.parametrize("text", ["", "podman version 5", "apptainer version", "2.5.2-dist"])
def test_another_answer_is_refused(text: str) -> None:
    with pytest.raises(EngineOutputError, match="unexpected answer"):
        parse_version(Completed(("e",), 0, text, ""))


def test_buildcfg_is_read_line_by_line() -> None:
    text = "PACKAGE_NAME=apptainer\nA=x=y\nno pair\nEMPTY=\n"
    assert parse_buildcfg(Completed(("e",), 0, text, "")) == {"PACKAGE_NAME": "apptainer", "A": "x=y", "EMPTY": ""}


@pytest.mark.parametrize(
    ("name", "version", "flavour", "dot_folder", "has_no_eval", "is_too_old"),
    [
        ("apptainer", "apptainer version 1.4.5", "apptainer", ".apptainer", True, False),
        ("apptainer", "apptainer version 1.0.3", "apptainer", ".apptainer", False, True),
        ("singularity", "singularity-ce version 4.3.0", "singularity-ce", ".singularity", True, False),
        ("singularity", "singularity-ce version 3.9.0", "singularity-ce", ".singularity", False, True),
        ("singularity", "singularity version 3.8.7", "singularity", ".singularity", False, True),
    ],
)
def test_what_each_flavour_can_do(
    machine: Machine, name: str, version: str, flavour: Flavour, dot_folder: str, has_no_eval: bool, is_too_old: bool
) -> None:
    install(machine.path, name, version, setuid=1)
    found = machine.find()
    assert found is not None
    assert (found.flavour, found.dot_folder) == (flavour, dot_folder)
    assert (found.has_no_eval, found.is_too_old) == (has_no_eval, is_too_old)
    assert (found.setuid, found.config_file, found.libexec) == (True, "/etc/e.conf", "/l")


def test_the_real_engine_says_who_it_is(engine: EngineInfo) -> None:
    assert engine.version >= (1, 2, 0)
    assert Path(engine.config_file).name == f"{engine.dot_folder.removeprefix('.')}.conf"
    assert Path(engine.libexec).is_dir()
    assert not engine.is_too_old


# --- which flags this process needs


@pytest.mark.parametrize(
    ("uid", "missing", "run", "build"),
    [
        pytest.param(0, 0, (), (), id="full-root"),
        pytest.param(0, 1 << 21, ("--userns",), ("--fakeroot",), id="root-without-a-capability"),
        pytest.param(1000, (1 << 41) - 1, (), ("--fakeroot",), id="ordinary-user"),
    ],
)
def test_flags_that_the_host_makes_necessary(
    monkeypatch: pytest.MonkeyPatch,
    engine: EngineInfo,
    uid: int,
    missing: int,
    run: tuple[str, ...],
    build: tuple[str, ...],
) -> None:
    known = (1 << 41) - 1
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(locate, "load_capabilities", lambda: Capabilities(known & ~missing, known))
    assert run_flags(replace(engine)) == run
    assert build_flags(engine) == build


def test_capabilities_are_those_of_this_process() -> None:
    found = load_capabilities()
    assert found.known & 1, "every kernel knows CAP_CHOWN"
    assert found.missing == found.known & ~found.permitted
    if os.geteuid() != 0:
        assert found.missing
