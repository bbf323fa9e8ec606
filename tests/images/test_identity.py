"""What can be told of an image without the engine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.errors import ApptainerError, ImageCorrupt, ImageInvalid, ImageNotFound
from jupyter_apptainer.images.identity import check_image


def copy_head(image: Path, target: Path, size: int) -> Path:
    with open(image, "rb") as stream:
        target.write_bytes(stream.read(size))
    return target


def test_whole_sif_is_accepted(starter_image: Path) -> None:
    identity = check_image(str(starter_image))
    assert identity.kind == "sif"
    assert identity.size_bytes == starter_image.stat().st_size
    assert identity.real_path == os.path.realpath(starter_image)


@pytest.mark.parametrize("size", [60, 100, 3000, 40_000, 1_000_000])
def test_sif_that_is_cut_short_is_corrupt_and_both_sizes_are_named(
    starter_image: Path, tmp_path: Path, size: int
) -> None:
    with pytest.raises(ImageCorrupt) as caught:
        check_image(str(copy_head(starter_image, tmp_path / "cut.sif", size)))
    assert f"it has {size} bytes and should have " in caught.value.message
    if size > 32_768:
        assert f"should have {starter_image.stat().st_size}" in caught.value.message


def test_sif_with_a_damaged_header_is_corrupt(starter_image: Path, tmp_path: Path) -> None:
    path = copy_head(starter_image, tmp_path / "x.sif", 200_000)
    with open(path, "r+b") as stream:
        stream.seek(80)
        stream.write(b"\xff" * 16)
    with pytest.raises(ImageCorrupt, match="damaged header"):
        check_image(str(path))


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "it is empty"), (b"Bootstrap: docker\n", "definition file"), (b"\x7fELF" * 1000, "not an image")],
    ids=["empty", "definition file", "program"],
)
def test_file_that_is_no_image_is_invalid(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "100%.sif"
    path.write_bytes(content)
    with pytest.raises(ImageInvalid, match=word) as caught:
        check_image(str(path))
    assert "%" not in caught.value.render()


def test_other_things_that_are_no_image_are_invalid(tmp_path: Path) -> None:
    with pytest.raises(ImageInvalid, match="neither a file nor a folder"):
        check_image("/dev/null")
    with pytest.raises(ImageInvalid, match="it has neither"):
        check_image(str(tmp_path))
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ImageInvalid, match="out of reach: Not a directory"):
        check_image(str(file / "x.sif"))


def test_missing_image_comes_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "torch-2.sif").touch()
    with pytest.raises(ImageNotFound) as caught:
        check_image(str(tmp_path / "torch2.sif"))
    assert caught.value.hint == f"did you mean {tmp_path}/torch-2.sif?"
    with pytest.raises(ImageNotFound) as caught:
        check_image(str(tmp_path / "no/such/x.sif"))
    assert caught.value.hint == f"the folder {tmp_path}/no does not exist"
    with pytest.raises(ImageNotFound) as caught:
        check_image("docker://python:3.12")
    assert "`jupyter apptainer image pull docker://python:3.12`" in str(caught.value)


@pytest.mark.parametrize("mark", [".singularity.d", "bin/sh"])
def test_sandbox_is_a_folder_with_a_mark(tmp_path: Path, mark: str) -> None:
    (tmp_path / mark).mkdir(parents=True)
    assert check_image(str(tmp_path)).kind == "sandbox"


def test_bare_file_systems_are_images(engine: EngineInfo, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/sh").write_bytes(os.urandom(100_000))
    squashfs, ext3 = tmp_path / "i.sqsh", tmp_path / "i.img"
    # An engine in a folder of its own brings the programs along.
    own = str(Path(engine.libexec, "apptainer", "bin"))
    search = os.pathsep.join([own, os.environ["PATH"], "/usr/sbin", "/sbin"])
    mksquashfs, mkfs = shutil.which("mksquashfs", path=search), shutil.which("mkfs.ext3", path=search)
    assert mksquashfs
    assert mkfs
    subprocess.run([mksquashfs, tree, squashfs, "-quiet", "-no-progress"], check=True, stdout=subprocess.DEVNULL)
    ext3.write_bytes(b"\0" * 4_000_000)
    subprocess.run([mkfs, "-q", "-d", tree, ext3], check=True)
    for path, kind in ((squashfs, "squashfs"), (ext3, "ext3")):
        assert check_image(str(path)).kind == kind
        with pytest.raises(ImageCorrupt, match="cut short"):
            check_image(str(copy_head(path, tmp_path / "cut", 60_000)))


def test_identity_changes_with_the_file(tmp_path: Path, starter_image: Path) -> None:
    link = tmp_path / "link.sif"
    link.symlink_to(starter_image)
    assert check_image(str(link)).key == check_image(str(starter_image)).key
    sandbox = tmp_path / "sandbox"
    (sandbox / ".singularity.d").mkdir(parents=True)
    before = check_image(str(sandbox)).key
    os.utime(sandbox, ns=(1, 1))
    assert check_image(str(sandbox)).key != before


def test_unreadable_image_is_invalid(tmp_path: Path) -> None:
    path = tmp_path / "x.sif"
    path.touch(mode=0o000)
    with pytest.raises(ApptainerError) as caught:
        check_image(str(path))
    assert isinstance(caught.value, ImageInvalid)
    assert ("empty" if os.geteuid() == 0 else "cannot be read") in caught.value.message
