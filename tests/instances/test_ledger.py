"""The ledger: what is written comes back, and what is not ours is passed over."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_apptainer.instances.ledger import iter_entries, load_entry, remove_entry, save_entry
from jupyter_apptainer.instances.model import Instance, LedgerEntry
from jupyter_apptainer.instances.process import ProcessIdentity
from jupyter_apptainer.places import Places, find_places

INSTANCE = Instance(
    name="jpa-1",
    image="/i.sif",
    init=ProcessIdentity(10, 100),
    starter=ProcessIdentity(9, 99),
    pid_namespace=4026531836,
    mount_namespace=4026531840,
    record_path="/r/jpa-1/jpa-1.json",
    log_paths=("/l/jpa-1.out", "/l/jpa-1.err"),
)
ENTRY = LedgerEntry(
    name="jpa-1",
    image="/i.sif",
    owner=ProcessIdentity(8, 98),
    kernel_id="1f3c",
    label="/data/ü.ipynb",
    started_at=1000.5,
    record_dir="/r",
    log_dir="/l",
    directories=("/run/aa", "/var/tmp/aa"),
    overlays=("/o,dd.img",),
    connection_file="/j/kernel-1.json",
)


@pytest.fixture
def own(tmp_path: Path) -> Places:
    """A ledger of this test alone."""
    return find_places({"HOME": str(tmp_path), "JUPYTER_APPTAINER_HOME": str(tmp_path / "h")})


FULL = replace(
    ENTRY,
    instance=replace(INSTANCE, name="jpa-shared-lab-1"),
    process=ProcessIdentity(11, 101),
    kernel=ProcessIdentity(12, 102),
    kernelspec="torch",
    persist=28_800,
    orphaned_at=2000.5,
    keeper=ProcessIdentity(13, 103),
    shared="jpa-shared-lab-1",
    wish={"image": '"/i.sif"'},
    instance_directories=("/run/s1", "/var/tmp/s1"),
    phases={"image": 0.1, "connect": 0.5},
)


@pytest.mark.parametrize(
    "entry",
    [ENTRY, replace(ENTRY, instance=INSTANCE), FULL, replace(FULL, persist=True)],
    ids=["starting", "running", "shared", "for-ever"],
)
def test_what_is_written_comes_back(own: Places, entry: LedgerEntry) -> None:
    path = save_entry(own, entry)
    assert load_entry(own, "jpa-1") == entry
    assert list(iter_entries(own)) == [entry]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.parent.name == own.hostname


def test_an_entry_is_replaced(own: Places) -> None:
    save_entry(own, ENTRY)
    save_entry(own, replace(ENTRY, instance=INSTANCE))
    assert [entry.instance for entry in iter_entries(own)] == [INSTANCE]


def test_forgetting_twice_is_no_error(own: Places) -> None:
    save_entry(own, ENTRY)
    remove_entry(own, "jpa-1")
    remove_entry(own, "jpa-1")
    assert load_entry(own, "jpa-1") is None
    assert list(iter_entries(own)) == []


def test_a_ledger_that_is_not_there_is_empty(own: Places) -> None:
    assert list(iter_entries(own)) == []
    assert not own.ledger.exists()


def test_the_oldest_comes_first(own: Places) -> None:
    for name, started_at in (("jpa-a", 3.0), ("jpa-b", 1.0), ("jpa-c", 2.0)):
        save_entry(own, replace(ENTRY, name=name, started_at=started_at))
    assert [entry.name for entry in iter_entries(own)] == ["jpa-b", "jpa-c", "jpa-a"]


def _rename(**fields: object) -> bytes:
    return json.dumps(ENTRY.to_json() | {"name": "jpa-2"} | fields).encode()


def _without(key: str) -> str:
    record = ENTRY.to_json() | {"name": "jpa-2"}
    del record[key]
    return json.dumps(record)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"name": "jpa-2"', id="cut-short"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"null", id="null"),
        pytest.param(b"\xff\xfe", id="no-text"),
        pytest.param(_without("owner").encode(), id="without-owner"),
        pytest.param(_rename(owner={"pid": "x", "start_ticks": 1}), id="odd-pid"),
        pytest.param(_rename(owner=None), id="no-owner"),
        pytest.param(_rename(directories=None), id="no-folders"),
        pytest.param(_rename(directories="/x"), id="folders-are-text"),
        pytest.param(_rename(directories=["/x", 1]), id="a-folder-is-a-number"),
        pytest.param(_rename(overlays="/x"), id="overlays-are-text"),
        pytest.param(_rename(instance={"name": "x"}), id="half-an-instance"),
        pytest.param(_rename(instance="x"), id="instance-is-text"),
        pytest.param(_rename(started_at="noon"), id="odd-time"),
    ],
)
def test_a_broken_file_is_passed_over_and_kept(own: Places, content: bytes) -> None:
    save_entry(own, ENTRY)
    broken = own.ledger / "jpa-2.json"
    broken.write_bytes(content)
    assert load_entry(own, "jpa-2") is None
    assert list(iter_entries(own)) == [ENTRY]
    assert broken.exists()


@pytest.mark.parametrize("name", ["other.json", ".jpa-2.json.77", "jpa-2.txt"])
def test_other_files_are_not_looked_at(own: Places, name: str) -> None:
    save_entry(own, ENTRY)
    (own.ledger / name).write_text(json.dumps(ENTRY.to_json()))
    assert len(list(iter_entries(own))) == 1


def test_an_entry_under_another_name_is_not_ours(own: Places) -> None:
    save_entry(own, ENTRY)
    (own.ledger / "jpa-2.json").write_text(json.dumps(ENTRY.to_json()))
    assert load_entry(own, "jpa-2") is None
    assert len(list(iter_entries(own))) == 1
