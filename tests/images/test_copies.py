"""Unpacked copies of images: made once and whole, within their limit, and gone when nobody wants them; what cannot be unpacked says why."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_apptainer.config import ApptainerConfig
from jupyter_apptainer.engine.companions import get_companion
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.unsquash import Contents
from jupyter_apptainer.errors import DiskFull, ImageInvalid
from jupyter_apptainer.images.copies import Copy, CopyStore
from jupyter_apptainer.images.identity import check_image
from jupyter_apptainer.images.sif_write import measure_offset, write_header
from jupyter_apptainer.images.unpack import find_obstacle, make_room, plan_unpack
from jupyter_apptainer.instances import ledger
from jupyter_apptainer.instances.model import LedgerEntry
from jupyter_apptainer.instances.process import ProcessIdentity
from jupyter_apptainer.places import Places
from jupyter_apptainer.tasks.follow import wait_for_task
from jupyter_apptainer.tasks.start import Started, start_task

SETTINGS = ApptainerConfig(task_niceness=0)
MIB = 1 << 20
Hold = Callable[[Copy], None]

# Makes a copy as the worker does, and is killed before it has all of it.
HALF = """
import json, sys
from pathlib import Path
from jupyter_apptainer.images.copies import CopyStore
from jupyter_apptainer.images.identity import check_image
from jupyter_apptainer.places import find_places
with CopyStore(Path(sys.argv[1]), 0, find_places()).begin(check_image(sys.argv[2])) as folder:
    (folder / "lab.sif" / "bin").mkdir(parents=True)
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path: Path, places: Places) -> CopyStore:
    """Copies, with a ledger and tasks of their own."""
    return CopyStore(tmp_path / "copies", 2048 * MIB, replace(places, data=tmp_path / "data"))


@pytest.fixture
def images(small_image: Path, tmp_path: Path) -> list[Path]:
    return [Path(shutil.copyfile(small_image, tmp_path / f"{name}.sif")) for name in ("one", "two", "three")]


@pytest.fixture
def hold(store: CopyStore) -> Hold:
    """Have a kernel run in a copy, as far as the ledger knows."""

    def enter(copy: Copy) -> None:
        entry = LedgerEntry(
            f"jpa-{copy.key}", copy.about.image, ProcessIdentity.current(), "k", "", time.time(), "/r", "/l"
        )
        ledger.save_entry(store.places, replace(entry, unpacked=str(copy.tree)))

    return enter


def start(image: Path, store: CopyStore) -> Started:
    return start_task(store.places, plan_unpack(check_image(str(image)), store), settings=SETTINGS)


def unpack(image: Path, store: CopyStore) -> Copy:
    wait_for_task(store.places, start(image, store).task.id)
    found = store.find(check_image(str(image)))
    assert found is not None
    return found


def list_names(store: CopyStore) -> list[str]:
    return sorted(os.path.basename(copy.about.image) for copy in store.list_all())


@pytest.mark.user  # the same for every user
def test_copies_are_made_once_kept_within_the_limit_and_never_taken_from_a_kernel(
    images: list[Path], store: CopyStore, hold: Hold
) -> None:
    one, two, three = images
    # Under the lock the first cannot be done before the second is asked for.
    with store.lock():
        first, second = start(one, store), start(one, store)
    assert (first.task.id, first.is_joined, second.is_joined) == (second.task.id, False, True)
    made = wait_for_task(store.places, first.task.id)
    copy = unpack(one, store)
    assert made["path"] == str(copy.tree) == f"{store.folder}/{copy.key}/one.sif"
    assert (store.folder.stat().st_mode & 0o777, copy.path.stat().st_mode & 0o777) == (0o700, 0o700)
    assert sum(1 for _ in copy.tree.rglob("*")) == copy.about.files
    assert [path.name for path in store.folder.iterdir() if path.name.startswith(".")] == [".lock"]

    # Room for two: the one that was not used for longest goes.
    store.limit_bytes = 2 * copy.about.size_bytes
    unpack(two, store)
    store.touch(copy)
    unpack(three, store)
    assert list_names(store) == ["one.sif", "three.sif"]

    # Unless a kernel runs in it: then there is no room, and nothing goes.
    for each in store.list_all():
        hold(each)
    with pytest.raises(ImageInvalid, match="copies in use take"):
        unpack(two, store)
    os.utime(one)
    assert store.find(check_image(str(one))) is None
    assert (store.drop_stale(), store.prune(0)) == ([], [])
    assert list_names(store) == ["one.sif", "three.sif"]


@pytest.mark.user  # the same for every user
def test_the_copy_of_an_image_that_has_changed_or_is_gone_goes(images: list[Path], store: CopyStore) -> None:
    one, two, _ = images
    old, other = unpack(one, store), unpack(two, store)
    os.utime(one)
    new = unpack(one, store)
    assert new.key != old.key
    assert not old.path.exists()
    two.unlink()
    assert [copy.key for copy in store.drop_stale()] == [other.key]
    assert list_names(store) == ["one.sif"]


@pytest.mark.user  # the same for every user
def test_a_copy_of_which_files_were_removed_is_not_used_and_made_anew(
    images: list[Path], store: CopyStore, hold: Hold
) -> None:
    copy = unpack(images[0], store)
    for path in copy.tree.rglob("*"):
        # As those who clean scratch folders of what was not changed for long.
        if path.is_file() and not path.is_symlink():
            path.unlink()
    assert store.find(check_image(str(images[0]))) is None
    assert unpack(images[0], store).about.files == copy.about.files
    shutil.rmtree(copy.tree / "usr")
    hold(copy)
    with pytest.raises(ImageInvalid, match="a kernel runs in a copy of which files were removed"):
        unpack(images[0], store)


@pytest.mark.user  # the same for every user
def test_what_a_killed_process_has_made_is_no_copy_and_is_removed(images: list[Path], store: CopyStore) -> None:
    image = images[0]
    with subprocess.Popen(
        [sys.executable, "-c", HALF, store.folder, image], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as maker:
        try:
            assert maker.stdout is not None
            half = Path(maker.stdout.readline().strip())
            assert half.is_dir()
            assert store.remove_leftovers() == []
            assert store.find(check_image(str(image))) is None
        finally:
            maker.kill()
    assert store.find_leftovers() == [half]
    assert store.find(check_image(str(image))) is None
    # Nor is what another version has made, or half of it.
    odd = store.folder / "0123456789abcdef"
    (odd / "lab.sif").mkdir(parents=True)
    (odd / "about.json").write_text("{}")
    store.remove_leftovers()
    assert (half.exists(), odd.exists()) == (False, False)
    assert unpack(image, store).tree.is_dir()


def make_image(engine: EngineInfo, folder: Path, *pseudo_files: str) -> Path:
    """A SIF of a folder and of files that only root could make."""
    (folder / "root/bin").mkdir(parents=True)
    (folder / "root/a\nb c").write_text("x" * 10)
    path, words = folder / "made.sif", [word for line in pseudo_files for word in ("-p", line)]
    program = get_companion(engine, "mksquashfs", "pack")
    offset = str(measure_offset(()))
    flags = ("-noappend", "-quiet", "-no-progress", "-offset", offset, *words)
    subprocess.run((program, folder / "root", path, *flags), check=True)
    write_header(path, (), 0)
    return path


def test_devices_in_dev_are_left_out_and_others_are_refused(
    engine: EngineInfo, store: CopyStore, tmp_path: Path
) -> None:
    (tmp_path / "i").mkdir()
    (tmp_path / "o").mkdir()
    fine = make_image(engine, tmp_path / "i", "dev d 755 0 0", "dev/null c 666 0 0 1 3")
    copy = unpack(fine, store)
    assert (copy.tree / "a\nb c").read_text() == "x" * 10
    assert (copy.tree / "bin").is_dir()
    odd = make_image(engine, tmp_path / "o", "opt d 755 0 0", "opt/tap c 666 0 0 10 200")
    with pytest.raises(ImageInvalid, match="it has devices, such as /opt/tap"):
        unpack(odd, store)


@pytest.mark.user  # the same for every user
def test_what_cannot_be_unpacked_says_why(
    engine: EngineInfo, images: list[Path], store: CopyStore, tmp_path: Path
) -> None:
    image = images[0]

    def ask(path: Path, **changes: object) -> str:
        return find_obstacle(replace(engine, **changes), check_image(str(path)), store.folder)  # type: ignore[arg-type]  # its fields

    assert ask(image) == ""
    assert "installed setuid" in ask(image, setuid=True)
    config = tmp_path / "apptainer.conf"
    config.write_text("# rules\nallow container dir = no\n")
    assert "allow container dir = no" in ask(image, config_file=str(config))
    (tmp_path / "sandbox/bin").mkdir(parents=True)
    (tmp_path / "sandbox/.singularity.d").mkdir()
    assert ask(tmp_path / "sandbox") == "it is unpacked already"

    # The number of its file system's type says so (pkg/sif of Apptainer).
    encrypted = bytearray(image.read_bytes())
    at = encrypted.index(struct.pack("<ii", 1, 2), 4096)
    encrypted[at : at + 4] = struct.pack("<i", 5)
    (tmp_path / "encrypted.sif").write_bytes(encrypted)
    assert ask(tmp_path / "encrypted.sif") == "it is encrypted"

    subprocess.run([engine.path, "-q", "overlay", "create", "--size", "64", images[1]], check=True)
    assert "overlay embedded" in ask(images[1])
    with pytest.raises(ImageInvalid, match="is not unpacked: it has an overlay embedded"):
        unpack(images[1], store)

    store.limit_bytes = 1 << 60
    with pytest.raises(DiskFull, match="of which"):
        make_room(store, str(image), Contents(1 << 50, 1, ()))
