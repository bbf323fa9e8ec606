"""Folders of real squashfs files, read without a program, and what of an image's Python their names tell."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jupyter_apptainer.engine.companions import run_companion
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.images.find_python import find_python
from jupyter_apptainer.images.identity import check_image
from jupyter_apptainer.images.squashfs_tree import SquashfsTree, UnreadableTree


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with so many names that their tables have several blocks, and an index."""
    root = tmp_path_factory.mktemp("tree")
    for folder in ("usr/bin", "opt/tool/bin", "opt/tool/lib/python3.12/site-packages", "many", "empty"):
        (root / folder).mkdir(parents=True)
    for number in range(3000):
        (root / f"many/{'name' * (number % 20)}-{number}").touch()
    (root / "many/ü").symlink_to("/usr")
    for name in ("usr/bin/python3.9", "opt/tool/bin/python3.12", "opt/tool/bin/python3"):
        (root / name).touch()
    (root / "opt/tool/lib/python3.12/site-packages/ipykernel-7.1.0.dist-info").mkdir()
    return root


def pack(engine: EngineInfo, tree: Path, target: Path, compression: str) -> Path:
    argv = ("mksquashfs", str(tree), str(target), "-quiet", "-no-progress", "-comp", compression)
    run_companion(engine, argv, "pack")
    return target


@pytest.mark.parametrize("compression", ["gzip", "lz4", "xz"])
def test_names_are_those_of_the_folder(engine: EngineInfo, tree: Path, tmp_path: Path, compression: str) -> None:
    image = pack(engine, tree, tmp_path / "a.sqsh", compression)
    with SquashfsTree(str(image), 0) as found:
        for folder in (".", "many", "empty", "usr/bin", "opt/tool/lib/python3.12/site-packages"):
            assert sorted(found.list_names(folder.strip("."))) == sorted(os.listdir(tree / folder))
        assert found.list_names("not/there") == []
        # A link on the way is not followed.
        assert found.list_names("many/ü/bin") == []
    identity = check_image(str(image))
    assert find_python(identity, None) == ("3.9", None)
    assert find_python(identity, 'export PATH="/opt/tool/bin:$PATH"') == ("3.12", "7.1.0")


def test_folder_on_the_host_is_read_alike(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "box/.singularity.d").mkdir(parents=True)
    for name in ("usr", "opt"):
        os.rename(tree / name, tmp_path / "box" / name)
    try:
        assert find_python(check_image(str(tmp_path / "box")), "PATH=/opt/tool/bin:/bin") == ("3.12", "7.1.0")
    finally:
        for name in ("usr", "opt"):
            os.rename(tmp_path / "box" / name, tree / name)


def test_what_cannot_be_read_is_not_known(engine: EngineInfo, tree: Path, tmp_path: Path) -> None:
    """Python has no zstd of its own before 3.14; and a file may be damaged in any place, or lead round in a circle."""
    zstd = pack(engine, tree, tmp_path / "zstd.sqsh", "zstd")
    assert find_python(check_image(str(zstd)), None) == (None, None)
    content = bytearray(pack(engine, tree, tmp_path / "good.sqsh", "lz4").read_bytes())
    bad = tmp_path / "bad.sqsh"
    for at in range(96, len(content), 1499):
        bad.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        try:
            with SquashfsTree(str(bad), 0) as found:
                found.list_names("many")
        except UnreadableTree:
            continue
    bad.write_bytes(content[: len(content) // 2])
    with SquashfsTree(str(bad), 0) as found, pytest.raises(UnreadableTree):
        found.list_names("many")
