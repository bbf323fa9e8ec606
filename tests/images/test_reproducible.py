"""Builds at different times that give the same bytes, and what is settled in an unpacked image for that."""

from __future__ import annotations

import json
import os
import py_compile
from pathlib import Path

import pytest

from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.errors import SpecError
from jupyter_apptainer.images.build import BuildOptions, build_image
from jupyter_apptainer.images.content import read_content
from jupyter_apptainer.images.digest import compute_digest
from jupyter_apptainer.images.identity import check_image
from jupyter_apptainer.images.recipes.recipe import load_definition
from jupyter_apptainer.images.reproducible import format_build_date, load_epoch, settle_tree
from jupyter_apptainer.images.sif import read_sif
from jupyter_apptainer.places import Places

EPOCH = 1700000000


def test_two_builds_are_one_file(engine: EngineInfo, places: Places, tmp_path: Path) -> None:
    """The definition writes the time and a random number into its files' times and names of folders that are removed."""
    recipe = tmp_path / "twice.def"
    recipe.write_text(
        "Bootstrap: scratch\n\n%setup\n    mkdir -p $APPTAINER_ROOTFS/opt\n"
        "    date +%N >$APPTAINER_ROOTFS/opt/$$ && rm $APPTAINER_ROOTFS/opt/$$\n"
        "    touch $APPTAINER_ROOTFS/opt/new && touch -d @1600000000 $APPTAINER_ROOTFS/opt/old\n"
        "%labels\n    made-by test\n"
    )
    found = []
    for name in ("one.sif", "two.sif"):
        options = BuildOptions(epoch=EPOCH)
        found.append(build_image(engine, places, load_definition(recipe), tmp_path / name, options).path)
    assert found[0].read_bytes() == found[1].read_bytes()
    content = read_content(check_image(str(found[0])))
    assert content.labels["org.label-schema.build-date"] == "Tuesday_14_November_2023_22:13:20_UTC"
    assert content.labels["made-by"] == "test"
    assert content.definition is not None
    assert content.definition.startswith("Bootstrap: scratch")
    assert (content.compression, content.created_at) == ("lz4", EPOCH)
    # Other content is another image, also for layers that are made for it.
    recipe.write_text(recipe.read_text().replace("made-by test", "made-by another"))
    other = build_image(engine, places, load_definition(recipe), tmp_path / "three.sif", BuildOptions(epoch=EPOCH))
    assert read_sif(str(other.path)).uuid != read_sif(str(found[0])).uuid
    assert compute_digest(str(other.path), places) != compute_digest(str(found[0]), places)


@pytest.mark.parametrize("mode", list(py_compile.PycInvalidationMode), ids=lambda mode: mode.name.lower())
def test_bytecode_stays_valid(tmp_path: Path, mode: py_compile.PycInvalidationMode) -> None:
    source = tmp_path / "lib/module.py"
    source.parent.mkdir()
    source.write_text("x = 1\n")
    compiled = Path(str(py_compile.compile(str(source), invalidation_mode=mode)))
    settle_tree(tmp_path, EPOCH)
    # What mksquashfs does to all files.
    os.utime(source, (EPOCH, EPOCH))
    flags, stamp = (int.from_bytes(compiled.read_bytes()[at : at + 4], "little") for at in (4, 8))
    if mode is py_compile.PycInvalidationMode.UNCHECKED_HASH:
        assert flags == 1
    else:
        assert (flags, stamp) == (0, EPOCH)


def test_old_bytecode_and_files_of_the_host_are_left(tmp_path: Path) -> None:
    root, host = tmp_path / "root", tmp_path / "host"
    (root / "etc").mkdir(parents=True)
    (root / ".singularity.d").mkdir()
    host.mkdir()
    shadow = "root:*:99999:0:99999:7:::\n"
    (host / "shadow").write_text(shadow)
    (host / "labels.json").write_text(json.dumps({"org.label-schema.build-date": "now"}))
    (host / "dpkg.log").touch()
    source = host / "module.py"
    source.write_text("x = 1\n")
    os.utime(source, (EPOCH - 1, EPOCH - 1))
    old = Path(str(py_compile.compile(str(source))))
    before = {path: path.read_bytes() for path in (host / "shadow", host / "labels.json", host / "dpkg.log", old)}
    (root / "etc/shadow").symlink_to(host / "shadow")
    (root / ".singularity.d/labels.json").symlink_to(host / "labels.json")
    (root / "var").mkdir()
    (root / "var/log").symlink_to(host)
    (root / "link.pyc").symlink_to(old)
    settle_tree(root, EPOCH)
    settle_tree(host, EPOCH)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("text", ["yesterday", "-1", "1.5"])
def test_epoch_that_is_no_time_is_refused(text: str) -> None:
    assert load_epoch({"SOURCE_DATE_EPOCH": "17"}) == 17
    assert load_epoch({"SOURCE_DATE_EPOCH": ""}) is None
    with pytest.raises(SpecError, match="SOURCE_DATE_EPOCH"):
        load_epoch({"SOURCE_DATE_EPOCH": text})


def test_date_is_written_as_the_engine_does() -> None:
    assert format_build_date(1) == "Thursday_1_January_1970_0:0:1_UTC"
