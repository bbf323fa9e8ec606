"""Overlays that become part of an image."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.options import build_image_build
from jupyter_apptainer.engine.runner import Runner
from jupyter_apptainer.images.content import read_content
from jupyter_apptainer.images.identity import check_image
from jupyter_apptainer.images.inventory import read_inventory
from jupyter_apptainer.images.lock import make_lock
from jupyter_apptainer.places import Places
from tests.integration.conftest import MakeKernelspec
from tests.integration.overlaid import PROGRAM, overlay_command


def test_an_overlay_and_its_image_become_a_new_image(
    engine: EngineInfo,
    make_small_image: Callable[[], Path],
    run_in: Callable[..., str],
    starter_image: Path,
    tmp_path: Path,
) -> None:
    sandbox, overlay, target = make_small_image(), tmp_path / "layer.img", tmp_path / "new.sif"
    image = tmp_path / "small.sif"
    give_away = ("--fakeroot", "--bind", f"{sandbox}:/mnt")
    if os.geteuid():
        # A folder that only another user of the image may enter, as a package manager's are.
        run_in(starter_image, "mkdir -m 700 /mnt/var/others; chown 42:42 /mnt/var/others", *give_away)
    build = build_image_build(engine, str(image), str(sandbox), build_engine_environment(os.environ))
    Runner().run(build)
    if os.geteuid():
        run_in(starter_image, "rmdir /mnt/var/others", *give_away)
    overlay_command("create", overlay, "--size", "64M", "--image", image)
    script = "rm /srv/old; rm -r /srv/gone; mkdir /srv/gone; echo new > /srv/gone/new; echo changed > /srv/changed; ln -s new /srv/link"
    run_in(image, script, "--overlay", str(overlay))
    overlay_command("freeze", overlay, target, "--image", image)
    listing = (
        "cd /srv; for f in * gone/*; do [ -L $f ] && echo $f '->' || echo $f; done; read line < changed; echo $line"
    )
    assert run_in(target, listing).split("\n") == ["changed", "gone", "link ->", "gone/new", "changed", ""]
    assert overlay.exists()
    assert not list(tmp_path.glob(".jpa-*"))
    assert "exists already" in overlay_command("freeze", overlay, target, "--image", image, status=1).stderr


def test_an_image_and_its_overlays_become_one_image(
    engine: EngineInfo,
    make_small_image: Callable[[], Path],
    make_kernelspec: MakeKernelspec,
    run_in: Callable[..., str],
    places: Places,
    tmp_path: Path,
) -> None:
    """A layer below, an overlay above; what the second has deleted of the first is gone, and modes are those of the last writer."""
    image, below, above = tmp_path / "small.sif", tmp_path / "below.img", tmp_path / "above.img"
    Runner().run(build_image_build(engine, str(image), str(make_small_image()), build_engine_environment(os.environ)))
    for overlay in (below, above):
        overlay_command("create", overlay, "--size", "64M", "--image", image)
    run_in(image, "echo below > /srv/both; echo below > /srv/lower; umask 027; mkdir /opt", "--overlay", str(below))
    layer = tmp_path / "below.sqsh"
    overlay_command("freeze", below, layer)
    flags = ("--overlay", f"{layer}:ro", "--overlay", str(above))
    run_in(image, "rm /srv/lower /srv/both; umask 077; echo above > /srv/both; rm -r /srv/gone", *flags)
    target = tmp_path / "frozen.sif"
    argv: list[str | Path] = [
        PROGRAM,
        "image",
        "freeze",
        target,
        "--image",
        image,
        "--overlay",
        layer,
        "--overlay",
        above,
    ]
    subprocess.run(argv, check=True, capture_output=True, timeout=120)
    files = dict(read_inventory(engine, str(target)).files)
    assert "srv/lower" not in files
    assert "srv/gone" not in files
    assert not [path for path in files if ".wh." in path]
    assert (files["srv/both"].mode, files["opt"].mode) == (0o600, 0o750)
    assert files["srv/both"].digest == hashlib.sha256(b"above\n").hexdigest()
    assert {entry.owner for entry in files.values()} == {(0, 0)}
    content = read_content(check_image(str(target)))
    assert content.labels["org.jupyter-apptainer.frozen.image"].startswith("small.sif@sha256:")
    assert content.labels["org.jupyter-apptainer.frozen.overlays"] == "below.sqsh above.img"
    assert content.definition is not None
    assert "From: small.sif" in content.definition
    assert content.compression == "lz4"
    assert run_in(target, "read line < /srv/both; echo $line").strip() == "above"
    # What a kernel runs in is the same: the overlay that can be written to is above, wherever it stands.
    name = make_kernelspec({"image": str(image), "overlays": [str(above), f"{layer}:ro"]})
    again = tmp_path / "again.sif"
    argv = [PROGRAM, "image", "freeze", again, "--kernel", name]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120)
    assert f"kernel edit {name} --image {again} --unset overlays" in done.stderr
    files.pop(".singularity.d/labels.json")
    assert files.items() <= read_inventory(engine, str(again)).files.items()
    # A definition that cannot make it again says so, and does not make something else.
    lock = make_lock(engine, places, str(target))
    assert "exit 1" in lock.build.definition
    assert not list(tmp_path.glob(".jpa-*"))
