"""Overlay files and their records, without a kernel."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.errors import OverlayCreateError, OverlayNotFound, SpecError
from jupyter_apptainer.kernels.overlays import find_overlay_path
from jupyter_apptainer.kernels.wishes import OverlayWish
from jupyter_apptainer.overlays.ext3 import MIB, read_ext3
from jupyter_apptainer.overlays.holder import hold_overlay, is_locked
from jupyter_apptainer.overlays.manage import copy_overlay, create_overlay, grow_overlay, remove_overlay
from jupyter_apptainer.overlays.model import load_overlay, load_record, save_record
from jupyter_apptainer.overlays.size import format_bytes, parse_size_mib
from jupyter_apptainer.places import Places


@pytest.mark.parametrize(
    ("text", "size_mib"),
    [("64", 64), ("512M", 512), ("2G", 2048), ("2g", 2048), ("1TiB", 1048576)],
    ids=["MiB", "M", "G", "g", "TiB"],
)
def test_sizes_are_read_as_people_write_them(text: str, size_mib: int) -> None:
    assert parse_size_mib(text) == size_mib


@pytest.mark.parametrize("text", ["", "G", "1.5G", "-1G", "63", "1K"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(SpecError):
        parse_size_mib(text)


@pytest.mark.parametrize(("count", "text"), [(70 * MIB, "70 MiB"), (1536 * MIB, "1.5 GiB")], ids=["MiB", "GiB"])
def test_sizes_are_written_for_people(count: int, text: str) -> None:
    assert format_bytes(count) == text


def test_an_overlay_from_making_to_removing(engine: EngineInfo, tmp_path: Path, places: Places) -> None:
    path, copy = str(tmp_path / "a b.img"), str(tmp_path / "copy.img")
    made = create_overlay(engine, path, 512, os.environ)
    assert (made.kind, made.mode, made.size_bytes) == ("ext3", None, 512 * MIB)
    assert made.allocated_bytes < 64 * MIB
    assert made.ext3
    assert made.ext3.is_clean
    assert made.record
    assert made.record.created_by.split("@")[0]
    with pytest.raises(OverlayCreateError, match="exists already"):
        create_overlay(engine, path, 64, os.environ)
    copied = copy_overlay(path, copy, places)
    assert Path(copy).read_bytes() == Path(path).read_bytes()
    assert copied.allocated_bytes < 64 * MIB
    grown = grow_overlay(engine, copy, 1024, places)
    assert grown.ext3
    assert grown.ext3.size_bytes == 1024 * MIB
    with pytest.raises(SpecError, match="never made smaller"):
        grow_overlay(engine, copy, 512, places)
    with hold_overlay(path, places, for_writing=True):
        assert not is_locked(copy, for_writing=True)
        assert os.path.exists(path)
    remove_overlay(path, places)
    remove_overlay(copy, places)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OverlayNotFound):
        load_overlay(path)


def test_what_is_no_overlay_is_neither_overwritten_nor_removed(
    engine: EngineInfo, tmp_path: Path, places: Places
) -> None:
    notes = tmp_path / "layer.img.json"
    notes.write_text('{"my": "notes"}')
    with pytest.raises(OverlayCreateError, match=r"layer\.img\.json is in the way"):
        create_overlay(engine, str(tmp_path / "layer.img"), 64, os.environ)
    with pytest.raises(SpecError, match="no overlay"):
        remove_overlay(str(notes), places)
    folder = tmp_path / "work"
    folder.mkdir()
    with pytest.raises(SpecError, match="was not made here"):
        remove_overlay(str(folder), places)
    assert notes.read_text() == '{"my": "notes"}'
    assert folder.is_dir()


@pytest.mark.parametrize("content", ["", "[]", '{"version": 2}', '{"version": 1, "mode": "other"}', "\0"], ids=repr)
def test_a_record_that_is_not_ours_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "o.img").touch()
    (tmp_path / "o.img.json").write_text(content)
    assert load_record(str(tmp_path / "o.img")) is None


def test_a_record_can_be_read_by_whoever_may_read_the_overlay(tmp_path: Path) -> None:
    from jupyter_apptainer.overlays.model import new_record

    path = tmp_path / "o.img"
    path.touch(0o640)
    path.chmod(0o640)
    record = new_record(origin="kernel x")
    save_record(str(path), record)
    assert load_record(str(path)) == record
    assert (tmp_path / "o.img.json").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("content", [b"", b"x" * 4096, b"\0" * 2048], ids=["empty", "text", "zeros"])
def test_other_files_are_no_ext3(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert read_ext3(str(tmp_path / "file")) is None


NOTEBOOK = OverlayWish("auto", per="notebook")
KERNEL = OverlayWish("auto")


@pytest.mark.parametrize(
    ("wish", "folder", "environ", "name"),
    [
        pytest.param(KERNEL, "/k/torch", {}, "kernel-torch-", id="kernel"),
        pytest.param(KERNEL, "/other/torch", {}, "kernel-torch-", id="another-kernel-of-that-name"),
        pytest.param(
            NOTEBOOK, "/k/torch", {"JPY_SESSION_NAME": "/n/My thesis.ipynb"}, "notebook-My-thesis-", id="notebook"
        ),
        pytest.param(
            NOTEBOOK, "/k/torch", {"JPY_SESSION_NAME": "/m/My thesis.ipynb"}, "notebook-My-thesis-", id="elsewhere"
        ),
    ],
)
def test_automatic_overlays_have_names_of_their_own(
    wish: OverlayWish, folder: str, environ: Mapping[str, str], name: str, places: Places
) -> None:
    path = Path(find_overlay_path(wish, places, folder, environ))
    assert path.parent == places.overlays
    assert path.name.startswith(name)
    assert str(path) == find_overlay_path(wish, places, folder + "/", environ)
    others = {find_overlay_path(KERNEL, places, "/a/torch", {}), find_overlay_path(KERNEL, places, "/b/torch", {})}
    assert len(others) == 2
    assert str(path) not in others
