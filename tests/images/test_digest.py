"""Which image a file is, by its content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from jupyter_apptainer.errors import ImageInvalid, ImageMismatch, ImageNotFound
from jupyter_apptainer.images.digest import check_digest, compute_digest, find_by_digest
from jupyter_apptainer.places import Places


def write_image(path: Path, content: bytes = b"") -> str:
    """Write a file that passes for a squashfs image; returns its digest."""
    data = b"hsqs" + bytes(36) + (64).to_bytes(8, "little") + bytes(64) + content
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def test_digest_is_that_of_sha256sum(tmp_path: Path, places: Places) -> None:
    digest = write_image(tmp_path / "i.sif", b"x" * 3_000_000)
    assert compute_digest(str(tmp_path / "i.sif"), places) == digest
    check_digest(str(tmp_path / "i.sif"), digest, places)


def test_digest_is_kept_until_the_file_changes(tmp_path: Path, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "i.sif"
    digest = write_image(image, b"first")
    assert compute_digest(str(image), places) == digest
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "sha256", _forbid_for_files(hashlib.sha256))
        assert compute_digest(str(image), places) == digest
    times = image.stat()
    other = write_image(image, b"other")
    # Size and time of modification as before: the status has changed all the same.
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert image.stat().st_mtime_ns == times.st_mtime_ns
    assert image.stat().st_size == times.st_size
    assert compute_digest(str(image), places) == other


def _forbid_for_files(real: object) -> object:
    """Names of cache files are hashed as well, in one go."""

    def sha256(data: bytes | None = None) -> object:
        assert data is not None, "the file was read again"
        return real(data)  # type: ignore[operator]  # the real one

    return sha256


def test_another_image_is_named_with_both_digests(tmp_path: Path, places: Places) -> None:
    digest = write_image(tmp_path / "i.sif")
    with pytest.raises(ImageMismatch) as caught:
        check_digest(str(tmp_path / "i.sif"), "0" * 64, places)
    assert digest in caught.value.message
    assert "0" * 64 in caught.value.message


def test_a_sandbox_has_no_digest(tmp_path: Path, places: Places) -> None:
    (tmp_path / ".singularity.d").mkdir()
    with pytest.raises(ImageInvalid, match="no digest"):
        compute_digest(str(tmp_path), places)
    with pytest.raises(ImageNotFound):
        compute_digest(str(tmp_path / "none.sif"), places)


def test_the_file_with_a_digest_is_found_among_what_is_no_image(tmp_path: Path, places: Places) -> None:
    (tmp_path / "text").write_text("no image")
    write_image(tmp_path / "a.sif", b"a")
    digest = write_image(tmp_path / "b.sif", b"b")
    candidates = [str(tmp_path / name) for name in ("none", "text", ".", "a.sif", "b.sif")]
    assert find_by_digest(digest, candidates, places) == str(tmp_path / "b.sif")
    assert find_by_digest("0" * 64, candidates, places) is None
