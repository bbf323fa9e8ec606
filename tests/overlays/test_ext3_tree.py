"""What an overlay changes, read from its file: what the engine's own mount leaves in it, and what other file systems look like."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from jupyter_apptainer.engine.companions import run_companion
from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.options import ContainerOptions, build_exec, build_overlay_create
from jupyter_apptainer.engine.runner import Runner
from jupyter_apptainer.overlays.ext3_tree import find_changed

FOLDERS = (
    "/usr/lib/python3",
    "/usr/lib/python3/dist-packages",
    "/usr/share/doc/apt",
    "/etc/apt",
    "/opt",
    "/opt/tool",
    "/srv",
)
CHANGES = """
touch /opt/tool/new
rm -r /usr/share/doc; mkdir /usr/share/doc
rm -r /etc/apt
mkdir -p /usr/lib/python3 && touch /usr/lib/python3/here
"""
MIB = 1 << 20


def test_what_a_container_changed_is_found(engine: EngineInfo, starter_image: Path, tmp_path: Path) -> None:
    overlay, env, runner = str(tmp_path / "overlay.img"), build_engine_environment(os.environ), Runner()
    runner.run(build_overlay_create(engine, overlay, 64, env))
    assert find_changed(overlay, FOLDERS) == frozenset()
    options = ContainerOptions(overlays=(overlay,), home="none", isolation="contain")
    made = build_exec(engine, str(starter_image), ("mkdir", "-p", "/opt/tool"), env, options=options, cwd="/")
    assert runner.run(made).returncode == 0
    assert find_changed(overlay, FOLDERS) == frozenset({"/opt", "/opt/tool"})
    changed = build_exec(engine, str(starter_image), ("sh", "-ec", CHANGES), env, options=options, cwd="/")
    assert runner.run(changed).returncode == 0
    # Added to, put in the place of, deleted; what only lies below a folder with something new is as it was.
    assert find_changed(overlay, FOLDERS) == frozenset(FOLDERS) - {"/usr/lib/python3/dist-packages", "/srv"}


@pytest.mark.parametrize(
    "options",
    [("-t", "ext3"), ("-t", "ext3", "-b", "1024", "-I", "128"), ("-t", "ext4"), ("-t", "ext4", "-O", "^64bit,^extent")],
    ids=["ext3", "small", "ext4", "ext4 without extents"],
)
def test_file_systems_of_all_kinds_are_read(engine: EngineInfo, tmp_path: Path, options: Sequence[str]) -> None:
    upper = tmp_path / "tree/upper"
    (upper / "opt/deep/deeper").mkdir(parents=True)
    # More than fits into the blocks that an inode names.
    (upper / "many").mkdir()
    for number in range(1000):
        (upper / f"many/a-file-with-a-rather-long-name-{number}").touch()
    (upper / "many/last").mkdir()
    (upper / "many/.wh.gone").touch()
    image = make_image(engine, tmp_path, options)
    folders = ("/opt/deep/deeper", "/opt/deep/other", "/many/last", "/many/gone/below", "/many/none")
    assert find_changed(image, folders) == frozenset({"/opt/deep/deeper", "/many/last", "/many/gone/below"})


@pytest.mark.parametrize("kind", ["other feature", "unclean", "cut", "no file system", "folder", "missing"])
def test_what_is_not_understood_is_not_guessed(engine: EngineInfo, tmp_path: Path, kind: str) -> None:
    (tmp_path / "tree/upper").mkdir(parents=True)
    image = make_image(
        engine, tmp_path, ("-t", "ext4", "-O", "inline_data") if kind == "other feature" else ("-t", "ext3")
    )
    if kind == "unclean":
        run_companion(engine, ("debugfs", "-w", "-R", "ssv state 0", image), "mark it")
    elif kind == "cut":
        os.truncate(image, 5000)
    elif kind == "no file system":
        Path(image).write_bytes(bytes(MIB))
    path = {"folder": str(tmp_path), "missing": str(tmp_path / "none")}.get(kind, image)
    assert find_changed(path, ["/opt"]) is None


def make_image(engine: EngineInfo, tmp_path: Path, options: Sequence[str]) -> str:
    image = tmp_path / "image"
    image.touch()
    os.truncate(image, 32 * MIB)
    run_companion(engine, ("mke2fs", "-q", "-F", "-d", str(tmp_path / "tree"), *options, str(image)), "make it")
    return str(image)
