"""The real engine, made to fail by an overlay: what it prints must still be what the table expects."""

from __future__ import annotations

import os
import shutil

import pytest

from jupyter_apptainer import errors as e
from jupyter_apptainer.engine.diagnose import find_warnings
from tests.engine.bench import Bench, as_nobody, check


def test_missing_overlay(bench: Bench) -> None:
    error = check(bench.execute("--overlay", "/nosuch.img"), "overlay-missing", e.OverlayNotFound, "/nosuch.img")
    assert "apptainer overlay create" in str(error.hint)


def test_overlay_in_use_names_the_instance(bench: Bench) -> None:
    overlay = bench.make_overlay("a.img")
    with bench.instance("jpa-test-busy", "--overlay", overlay):
        for mode in ("", ":ro"):
            error = check(bench.execute("--overlay", f"{overlay}{mode}"), "overlay-busy", e.OverlayBusy, str(overlay))
            assert "jpa-test-busy" in str(error.hint)


def test_two_writable_overlays(bench: Bench) -> None:
    first, second = bench.make_overlay("a.img"), bench.make_overlay("b.img")
    completed = bench.execute("--overlay", first, "--overlay", second)
    check(completed, "overlay-two", e.OverlayConflict, str(second))


def test_writable_overlay_and_tmpfs(bench: Bench) -> None:
    completed = bench.execute("--overlay", bench.make_overlay("a.img"), "--writable-tmpfs")
    check(completed, "overlay-and-tmpfs", e.OverlayConflict, "a.img")


def test_existing_overlay(bench: Bench) -> None:
    bench.make_overlay("a.img")
    check(bench.run("overlay", "create", "--size", "64", "a.img"), "overlay-exists", e.OverlayCreateError, "a.img")


def test_overlay_too_small(bench: Bench) -> None:
    check(bench.run("overlay", "create", "--size", "10", "a.img"), "overlay-small", e.OverlayCreateError, "64 MiB")


def test_overlay_in_a_missing_folder(bench: Bench) -> None:
    completed = bench.run("overlay", "create", "--size", "64", "/nosuch/a.img")
    check(completed, "overlay-create", e.OverlayCreateError, "/nosuch/a.img")


def test_overlay_that_is_no_image(bench: Bench) -> None:
    (bench.folder / "junk.img").write_bytes(os.urandom(5000))
    check(bench.execute("--overlay", "junk.img"), "overlay-invalid", e.ImageInvalid, "junk.img")


def test_image_without_embedded_overlay(bench: Bench) -> None:
    copy = bench.folder / "copy.sif"
    shutil.copyfile(bench.image, copy)
    check(bench.execute("--writable", image=copy), "overlay-not-embedded", e.OverlayNotFound, str(copy))


def test_image_that_must_not_be_written(bench: Bench) -> None:
    if os.geteuid() == 0:
        bench = as_nobody(bench)
    copy = bench.folder / "copy.sif"
    shutil.copyfile(bench.image, copy)
    copy.chmod(0o444)
    check(bench.execute("--writable", image=copy), "image-not-writable", e.OverlayReadOnly, str(copy))


def test_full_overlay(bench: Bench) -> None:
    # Any folder that is ours in both modes of use and not bound from the host.
    completed = bench.run("overlay", "create", "--size", "64", "--create-dir", "/jpa-data", "a.img")
    assert completed.returncode == 0
    fill = "dd if=/dev/zero of=/jpa-data/big bs=1M count=100; exit 1"
    completed = bench.execute("--overlay", "a.img", command=("sh", "-c", fill))
    error = check(completed, "overlay-full", e.OverlayFull, "a.img")
    assert "overlay grow a.img" in str(error.hint)


@pytest.mark.user
def test_overlay_without_write_permission_is_a_warning(bench: Bench) -> None:
    overlay = bench.make_overlay("a.img")
    overlay.chmod(0o444)
    completed = bench.execute("--overlay", overlay)
    assert completed.returncode == 0, completed.stderr
    (warning,) = find_warnings(completed)
    assert isinstance(warning, e.OverlayReadOnly)
    check(bench.execute("--overlay", overlay, command=("touch", "/jpa-x")), "overlay-read-only", e.OverlayReadOnly)
