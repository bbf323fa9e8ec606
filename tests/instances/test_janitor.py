"""Removing folders of ours: stubborn ones go, and nothing around them is touched."""

from __future__ import annotations

import stat
from pathlib import Path

from jupyter_apptainer.instances.janitor import remove_tree


def test_folders_without_permissions_are_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "locked" / "deep").mkdir(parents=True)
    (tree / "locked" / "deep" / "file").write_text("x")
    (tree / "locked" / "deep").chmod(0o000)
    (tree / "locked").chmod(0o500)
    remove_tree(str(tree))
    assert not tree.exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(kept)
    remove_tree(str(tree))
    assert (kept / "file").read_text() == "x"


def test_a_missing_folder_is_no_reason_to_change_its_parent(tmp_path: Path) -> None:
    parent = tmp_path / "shared"
    parent.mkdir()
    parent.chmod(0o1777)
    remove_tree(str(parent / "gone"))
    assert stat.S_IMODE(parent.stat().st_mode) == 0o1777
