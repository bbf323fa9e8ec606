"""The catalogue: what is in folders and named by kernels, read without the engine and kept until it changes."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.errors import ImageNotFound
from jupyter_apptainer.images.catalogue import (
    compare_definitions,
    compare_images,
    find_image,
    find_image_dirs,
    find_stale_contents,
    list_images,
    load_image,
)
from jupyter_apptainer.images.probe import PROBE_OPTIONS, probe_image
from jupyter_apptainer.kernels.spec import PYTHON_COMMAND
from jupyter_apptainer.places import Places


@pytest.fixture
def shelf(small_sif: Path, tmp_path: Path) -> Path:
    """A folder with an image, an unpacked one, one that is cut short, and what is none."""
    folder = tmp_path / "shelf"
    (folder / "box/.singularity.d").mkdir(parents=True)
    shutil.copy(small_sif, folder / "lab.sif")
    (folder / "cut.sif").write_bytes(small_sif.read_bytes()[:100_000])
    (folder / "notes.txt").write_text("lab.sif is ours")
    (folder / ".hidden.sif").write_bytes(small_sif.read_bytes())
    (folder / "empty").touch()
    os.symlink("lab.sif", folder / "zlink.sif")
    os.symlink("gone.sif", folder / "broken.sif")
    return folder


def test_images_of_a_folder_and_those_that_kernels_name(places: Places, shelf: Path, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.sif")
    images = list_images(places, [shelf, tmp_path / "no-such-folder"], [missing, str(shelf / "lab.sif")])
    assert {Path(image.path).name: image.problem is None for image in images} == {
        "box": True,
        "cut.sif": False,
        "lab.sif": True,
        "missing.sif": False,
    }
    (cut,) = [image for image in images if image.path.endswith("cut.sif")]
    assert "cut short" in (cut.problem or "")
    assert cut.size_bytes == 100_000


def test_answer_is_kept_until_the_file_changes(places: Places, shelf: Path) -> None:
    path = shelf / "lab.sif"
    first = load_image(places, str(path))
    known = set(places.contents.iterdir())
    assert load_image(places, str(path)) == first
    assert set(places.contents.iterdir()) == known
    stamp = path.stat().st_mtime + 5
    os.utime(path, (stamp, stamp))
    assert load_image(places, str(path)).content == first.content
    (new,) = set(places.contents.iterdir()) - known
    assert new not in find_stale_contents(places)
    assert known & set(find_stale_contents(places))
    new.write_text("{")
    assert load_image(places, str(path)).content == first.content


def test_python_is_found_by_its_files_and_known_exactly_once_a_kernel_has_asked(
    engine: EngineInfo, places: Places, starter_image: Path, tmp_path: Path
) -> None:
    places = replace(places, cache=tmp_path / "cache")
    found = load_image(places, str(starter_image))
    probe = probe_image(engine, str(starter_image), PYTHON_COMMAND, places, os.environ, options=PROBE_OPTIONS)
    image = load_image(places, str(starter_image))
    assert image.probe == probe
    assert found.python
    assert (probe.python_version or "").startswith(f"{found.python}.")
    assert found.ipykernel == probe.ipykernel
    assert image.python == probe.python_version
    # Python without packages, which another kernel may have asked for later, tells less about the image.
    assert probe_image(engine, str(starter_image), ["/usr/bin/python3", *PYTHON_COMMAND[1:]], places, os.environ)
    assert load_image(places, str(starter_image)).probe == probe
    assert image.to_json()["ipykernel"] == probe.ipykernel
    assert image.content.compression == "lz4"


def test_difference_of_two_images(places: Places, small_sif: Path, starter_image: Path) -> None:
    small, starter = load_image(places, str(small_sif)), load_image(places, str(starter_image))
    topics = {each.topic: (each.first, each.second) for each in compare_images(small, starter)}
    assert topics["compression"] == ("zstd", "lz4")
    assert topics["label org.example.purpose"] == ("tests", None)
    assert "architecture" not in topics
    lines = compare_definitions(small, starter)
    assert "-%labels" in lines
    assert compare_images(small, replace(small, path="elsewhere")) == []


def test_names_of_images(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_image(places, "lab.sif") == find_image(places, "./lab.sif") == str(tmp_path / "lab.sif")
    with pytest.raises(ImageNotFound, match="not on this machine") as caught:
        find_image(places, "docker://nobody/nothing:1")
    assert caught.value.hint == "fetch it: `jupyter apptainer image pull docker://nobody/nothing:1`"


def test_folders_from_settings(places: Places) -> None:
    environ = {"HOME": "/home/ada", "SCRATCH": "/scratch/ada"}
    found = find_image_dirs(places, ["~/images", "$SCRATCH/images", "$NOWHERE/x", "relative", "~/images"], environ)
    assert found == [Path("/home/ada/images"), Path("/scratch/ada/images"), places.images]
