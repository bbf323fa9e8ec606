"""Locks of real images: what they hold, what is proven with them, and rebuilds that give the same file."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import jupyter_apptainer.images
from jupyter_apptainer.engine.companions import run_companion
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.errors import ImageCorrupt, SpecError
from jupyter_apptainer.images.build import BuildOptions, build_image
from jupyter_apptainer.images.content import read_content
from jupyter_apptainer.images.digest import compute_digest
from jupyter_apptainer.images.identity import check_image
from jupyter_apptainer.images.inventory import read_inventory
from jupyter_apptainer.images.lock import load_lock, make_lock
from jupyter_apptainer.images.recipes.recipe import load_definition
from jupyter_apptainer.places import Places

# The same for every user.
pytestmark = pytest.mark.user

EPOCH = 1700000000
SCHEMA = Path(jupyter_apptainer.images.__file__).with_name("data") / "image-lock.schema.json"
RECIPE = """\
Bootstrap: scratch

%files
    data /opt/data
%setup
    mkdir -p $APPTAINER_ROOTFS/var/lib/dpkg
    printf 'Package: {package}\\nVersion: {{{{ VERSION }}}}\\n' >$APPTAINER_ROOTFS/var/lib/dpkg/status
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/numbers").write_text("1 2 3\n")
    return tmp_path


@pytest.fixture
def build(engine: EngineInfo, places: Places, folder: Path) -> Callable[..., Path]:
    def run(name: str, package: str = "tool", version: str = "1") -> Path:
        recipe = folder / "recipe.def"
        recipe.write_text(RECIPE.format(package=package))
        loaded = load_definition(recipe, {"VERSION": version}, folder)
        return build_image(engine, places, loaded, folder / name, BuildOptions(epoch=EPOCH)).path

    return run


@pytest.fixture
def image_command(engine: EngineInfo, folder: Path) -> Run:
    def run(*words: object, status: int = 0) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "jupyter_apptainer.cli.main", "image", *map(str, words)]
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
        assert done.returncode == status, done.stderr
        return done

    return run


def test_image_is_made_again_from_its_lock(folder: Path, build: Callable[..., Path], image_command: Run) -> None:
    image = build("tool.sif")
    image_command("lock", image, "-o", "tool.lock.json")
    document = json.loads((folder / "tool.lock.json").read_text())
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    assert document["packages"] == [{"manager": "dpkg", "name": "tool", "version": "1"}]
    assert document["build"]["build_args"] == {"VERSION": "1"}
    assert document["build"]["epoch"] == EPOCH
    assert set(document["build"]["inputs"]) == {"data"}
    again = image_command("build", "again.sif", "--lock", "tool.lock.json")
    assert "byte for byte" in again.stderr
    assert (folder / "again.sif").read_bytes() == image.read_bytes()
    assert "byte for byte" in image_command("verify", "--lock", "tool.lock.json", "again.sif").stdout
    # What has changed on the way is said before and after.
    (folder / "data/numbers").write_text("1 2 4\n")
    other = image_command("build", "other.sif", "--lock", "tool.lock.json")
    assert "data has changed since the image was built" in other.stderr
    assert "files differ below: opt/data" in other.stderr
    assert "built from another inputs" in other.stderr


def test_lock_says_in_what_an_image_differs(folder: Path, build: Callable[..., Path], image_command: Run) -> None:
    image_command("lock", build("one.sif"), "-o", "one.lock.json")
    newer = build("two.sif", version="2")
    done = image_command("verify", "--lock", "one.lock.json", newer, status=1)
    assert "~ dpkg tool 1 -> 2" in done.stdout
    assert "files differ below: .singularity.d/Singularity, var/lib" in done.stdout
    found = json.loads(image_command("verify", "--lock", "one.lock.json", newer, "--json", status=1).stdout)
    assert (found["is_same_file"], found["is_same_content"], found["build"]) == (False, False, ["build_args"])
    diff = json.loads(image_command("diff", "--files", "--json", "one.sif", "two.sif").stdout)
    assert diff["packages"][0]["second"] == "2"
    assert diff["files"] == {
        "removed": [],
        "added": [],
        "changed": [".singularity.d/Singularity", "var/lib/dpkg/status"],
    }
    assert "~ /var/lib/dpkg/status" in image_command("diff", "--files", "one.sif", "two.sif").stdout


def test_notebook_keeps_the_lock_and_asks_for_the_image(
    folder: Path, build: Callable[..., Path], image_command: Run
) -> None:
    notebook = folder / "n.ipynb"
    before: dict[str, Any] = {
        "cells": [],
        "metadata": {"apptainer": {"nv": False}, "k": "é"},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    notebook.write_text(json.dumps(before))
    notebook.chmod(0o640)
    image = build("tool.sif")
    image_command("lock", image, "--notebook", notebook)
    metadata = json.loads(notebook.read_text())["metadata"]
    lock = load_lock(notebook)
    assert metadata["apptainer"] == {"nv": False, "image": f"tool.sif@sha256:{lock.image.sha256}"}
    assert metadata["k"] == "é"
    assert notebook.stat().st_mode & 0o777 == 0o640
    assert lock.to_json() == metadata["apptainer_lock"]
    image_command("build", "again.sif", "--lock", notebook)
    assert (folder / "again.sif").read_bytes() == image.read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "the document: expected an object"),
        ("{", "is no lock file"),
        ('{"format": 2}', "format: this version"),
        ('{"format": 1, "image": 7}', "image: expected dict, found 7"),
    ],
    ids=["list", "no-json", "future", "type"],
)
def test_what_is_no_lock_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(SpecError, match=message):
        load_lock(path)
    notebook = tmp_path / "x.ipynb"
    notebook.write_text('{"metadata": {}}')
    with pytest.raises(SpecError, match="no lock in its metadata"):
        load_lock(notebook)


def test_inventory_knows_all_kinds_of_files_and_names(engine: EngineInfo, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/sh").write_bytes(b"x" * 3_000_000)
    for name in ("a b", 'q"uote', "back\\slash", "new\nline R 1 2", "#", os.fsdecode(b"\xff")):
        (root / name).write_text(name, errors="surrogateescape")
    (root / "link").symlink_to("a b")
    os.link(root / "a b", root / "hard")
    os.mkfifo(root / "pipe")
    packed = tmp_path / "root.sqfs"
    run_companion(engine, ("mksquashfs", str(root), str(packed), "-quiet", "-no-progress", "-comp", "lz4"), "pack")
    from_file, from_folder = read_inventory(engine, str(packed)), read_inventory(engine, str(root))
    plain = {path: (entry.kind, entry.mode, entry.digest) for path, entry in from_file.files.items()}
    assert plain == {path: (entry.kind, entry.mode, entry.digest) for path, entry in from_folder.files.items()}
    assert len(plain) == 11
    assert {entry.owner for entry in from_file.files.values()} == {(os.getuid(), os.getgid())}
    assert from_file.files["bin/sh"].size_bytes == 3_000_000
    whole = packed.read_bytes()
    cut = tmp_path / "cut.sqfs"
    cut.write_bytes(whole[:5000] + b"\0" * (len(whole) - 5000))
    with pytest.raises(ImageCorrupt):
        read_inventory(engine, str(cut))


def test_rebuild_pins_versions_and_finds_the_base_where_it_is_now(
    engine: EngineInfo,
    small_image: Path,
    places: Places,
    folder: Path,
    image_command: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = Path(shutil.copyfile(small_image, folder / "base.sif"))
    site = folder / "data/site-packages/thing-1.0.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Name: thing\nVersion: 1.0\n")
    recipe = folder / "recipe.def"
    recipe.write_text(
        f"Bootstrap: localimage\nfrom:  {base}\n\n%files\n    data /opt/data\n"
        '%post\n    test -z "$PIP_CONSTRAINT" || cat "$PIP_CONSTRAINT" >/opt/pins; test ! -e /mnt/x\n'
    )
    loaded = load_definition(recipe, None, folder)
    lock = make_lock(engine, places, str(build_image(engine, places, loaded, folder / "one.sif").path))
    (folder / "lock.json").write_text(json.dumps(lock.to_json()))
    assert lock.build.bases[f"localimage:{base}"] == f"sha256:{compute_digest(str(base), places)}"
    (folder / "images").mkdir()
    base.rename(folder / "images/moved.sif")
    config = folder / "config"
    config.mkdir()
    (config / "jupyter_apptainer_config.py").write_text(
        f"c.ApptainerConfig.image_dirs = [{str(folder / 'images')!r}]\n"
    )
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(config))
    done = image_command("build", "two.sif", "--lock", "lock.json")
    # Its labels do as well, where the first build went on into another second.
    assert re.search(r"^files differ below: .*opt/pins$", done.stderr, re.MULTILINE)
    assert "packages differ" not in done.stderr
    found = read_content(check_image(str(folder / "two.sif")))
    # What the image says about its origin is what somebody wrote.
    assert found.definition is not None
    assert f"from:  {base}" in found.definition
    assert found.labels["org.label-schema.usage.singularity.deffile.from"] == str(base)
    again = make_lock(engine, places, str(folder / "two.sif"))
    assert again.build.bases == lock.build.bases
    assert again.image.created_at == lock.image.created_at
    pins = read_inventory(engine, str(folder / "two.sif")).files["opt/pins"]
    assert pins.digest == hashlib.sha256(b"thing==1.0\n").hexdigest()
    # Rebuilds are one file, and share their layers.
    image_command("build", "three.sif", "--lock", "lock.json")
    assert (folder / "three.sif").read_bytes() == (folder / "two.sif").read_bytes()
    log = max(places.tasks.rglob("log"), key=lambda path: path.stat().st_mtime).read_text()
    assert log.count("is unchanged") == 3
