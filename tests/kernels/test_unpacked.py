"""When a kernel starts from an unpacked copy of its image, and why not otherwise; what an overlay sees on top of either."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jupyter_apptainer.config import ApptainerConfig
from jupyter_apptainer.doctor.unpacked import probe_unpacked
from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.options import ContainerOptions, build_exec
from jupyter_apptainer.engine.runner import Runner
from jupyter_apptainer.errors import ImageInvalid
from jupyter_apptainer.images.identity import check_image
from jupyter_apptainer.instances import ledger
from jupyter_apptainer.kernels.plan import build_launch_plan
from jupyter_apptainer.kernels.spec import parse_container_spec
from jupyter_apptainer.kernels.unpacked import choose_copy, claim_copy, find_store, request_copy, unpack_now
from jupyter_apptainer.places import Places
from jupyter_apptainer.tasks.follow import wait_for_task
from jupyter_apptainer.tasks.store import iter_tasks
from tests.kernels.plans import CONTEXT
from tests.kernels.test_resume import build_entry

# The same for every user, and root has more time.
pytestmark = pytest.mark.root
Choose = Callable[..., tuple[bool, str]]


@pytest.fixture
def own(places: Places, tmp_path: Path) -> Places:
    """With a ledger and tasks of this test alone."""
    return replace(places, data=tmp_path / "data")


@pytest.fixture
def settings(tmp_path: Path) -> ApptainerConfig:
    return ApptainerConfig(unpacked_images="1G", unpacked_images_dir=str(tmp_path / "scratch"), task_niceness=0)


@pytest.fixture
def image(small_image: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(small_image, tmp_path / "lab.sif"))


@pytest.fixture
def choose(engine: EngineInfo, own: Places, settings: ApptainerConfig, image: Path) -> Choose:
    """Say whether a kernel would start from the copy, and why."""

    def ask(config: dict[str, Any] | None = None, **changes: Any) -> tuple[bool, str]:
        spec = parse_container_spec({"image": str(image), **(config or {})})
        found = choose_copy(spec, replace(engine, **changes), settings, own)
        return found.tree is not None, found.note

    return ask


def unpack(image: Path, engine: EngineInfo, settings: ApptainerConfig, own: Places) -> Path:
    return Path(wait_for_task(own, unpack_now(str(image), engine, settings, own).task.id)["path"])


def test_a_copy_is_used_where_nothing_tells_it_from_the_image(
    choose: Choose, image: Path, engine: EngineInfo, settings: ApptainerConfig, own: Places, tmp_path: Path
) -> None:
    assert choose() == (
        False,
        "there is no unpacked copy of it yet; one is made after a start, and `jupyter apptainer tasks` tells how that went",
    )
    tree = unpack(image, engine, settings, own)
    assert choose() == (True, f"its unpacked copy {tree} is started, which takes less time")
    overlay, layer = tmp_path / "o.img", shutil.copyfile(image, tmp_path / "layer.sif")
    subprocess.run([engine.path, "overlay", "create", "--size", "64", overlay], check=True)
    assert choose({"overlays": [str(overlay)]})[0]
    assert choose({"overlays": [f"{overlay}:ro", "tmpfs"]})[0]
    # One that is made at the start.
    assert choose({"overlays": [str(tmp_path / "new.img")]})[0]
    for config, reason in (
        ({"overlays": ["tmpfs"]}, "a layer in memory alone"),
        ({"overlays": [f"{layer}:ro", "tmpfs"]}, "an overlay is no ext3 file"),
        ({"extra_flags": ["--writable"]}, "`extra_flags`"),
    ):
        is_used, note = choose(config)
        assert (is_used, note.startswith(f"no unpacked copy is used: {reason}")) == (False, True), note
    assert choose(setuid=True)[0] is False
    os.utime(image)
    assert choose()[0] is False
    settings.unpacked_images = "0"
    assert choose() == (False, "")
    settings.unpacked_images = "lots"
    assert "is not a size" in choose()[1]
    settings.unpacked_images, settings.unpacked_images_dir = "1G", "scratch"
    assert "is no absolute path" in choose()[1]


@pytest.mark.parametrize("pattern", ["sha256:" + "0" * 64, "signed:" + "0" * 40], ids=["digest", "signature"])
def test_where_a_policy_asks_for_proofs_of_the_file_it_is_the_file_that_starts(
    choose: Choose,
    image: Path,
    engine: EngineInfo,
    settings: ApptainerConfig,
    own: Places,
    pattern: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    unpack(image, engine, settings, own)
    assert choose()[0]
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    lines = f"c.ApptainerPolicy.images = ['/', {pattern!r}]\n"
    (tmp_path / "jupyter_apptainer_config.py").write_text(lines)
    assert choose() == (
        False,
        "no unpacked copy is used: a policy asks for the digest or the signature of the image's file",
    )


def test_the_doctor_says_whether_copies_can_be_used(
    image: Path, engine: EngineInfo, settings: ApptainerConfig, own: Places
) -> None:
    def ask(**changes: Any) -> list[tuple[str, str]]:
        found = probe_unpacked(replace(engine, **changes), settings, own)
        return [(probe.status, probe.detail) for probe in found]

    folder = find_store(settings, own).folder
    assert ask() == [("ok", f"0 in {folder}, 0 MiB of 1.0 GiB")]
    unpack(image, engine, settings, own)
    assert ask()[0][1].startswith(f"1 in {folder}, ")
    ((status, detail),) = ask(setuid=True)
    assert (status, detail.startswith("none is made or used: the engine is installed setuid")) == ("warn", True)
    settings.unpacked_images_dir = "$NO_SUCH_VARIABLE/x"
    ((status, detail),) = ask()
    assert (status, detail.endswith("'$NO_SUCH_VARIABLE/x' is no absolute path here")) == ("warn", True)
    settings.unpacked_images, settings.unpacked_images_dir = "0", ""
    assert ask() == []


def test_a_plan_that_is_older_than_the_image_starts_the_image(
    image: Path, engine: EngineInfo, settings: ApptainerConfig, own: Places
) -> None:
    tree = str(unpack(image, engine, settings, own))
    spec = parse_container_spec({"image": str(image)})
    plan = build_launch_plan(spec, replace(CONTEXT, engine=engine, unpacked=tree, unpacked_note="so"))
    assert plan.container_env["APPTAINER_CONTAINER"] == plan.image == str(image)
    assert tree in plan.instance_argv
    entry = replace(build_entry(plan), unpacked=tree)
    assert claim_copy(plan, entry, own) == (tree, entry)
    assert ledger.load_entry(own, entry.name) == entry
    assert request_copy(plan, spec, settings, own, os.environ) is None
    os.utime(image)
    assert claim_copy(plan, entry, own) == (str(image), replace(entry, unpacked=""))


def test_a_copy_that_could_not_be_made_is_not_tried_again_with_every_start(
    image: Path, engine: EngineInfo, settings: ApptainerConfig, own: Places
) -> None:
    spec = parse_container_spec({"image": str(image)})
    plan = build_launch_plan(spec, replace(CONTEXT, engine=engine))
    settings.unpacked_images = "1M"
    first = request_copy(plan, spec, settings, own, os.environ)
    assert first is not None
    store = find_store(settings, own)
    with pytest.raises(ImageInvalid, match="it allows 1 MiB") as failed:
        wait_for_task(own, first.task.id)
    assert "that would take" in str(failed.value)
    assert request_copy(plan, spec, settings, own, os.environ) is None
    assert [task.id for task in iter_tasks(own) if task.spec.fingerprint == check_image(str(image)).key] == [
        first.task.id
    ]
    assert store.list_all() == []


def test_an_overlay_is_the_same_on_the_image_and_on_its_copy(
    image: Path, engine: EngineInfo, settings: ApptainerConfig, own: Places, tmp_path: Path
) -> None:
    tree, overlay = unpack(image, engine, settings, own), tmp_path / "o.img"
    subprocess.run([engine.path, "overlay", "create", "--size", "64", overlay], check=True)

    def run(root: Path, script: str, options: ContainerOptions) -> str:
        env = build_engine_environment(os.environ)
        command = build_exec(engine, str(root), ("sh", "-c", script), env, options=options, timeout_s=60)
        return str(Runner().run(command).stdout)

    writable, layered = (
        ContainerOptions(overlays=(str(overlay),)),
        ContainerOptions(overlays=(f"{overlay}:ro",), writable_tmpfs=True),
    )
    assert (
        run(image, "rm /etc/os-release; mkdir /opt/a; echo one > /opt/a/b; ls /etc/os-release || echo gone", writable)
        == "gone\n"
    )
    look = "cat /opt/a/*; ls /etc/os-release || echo gone; rm -r /opt && ls -d /opt || echo gone"
    for root in (tree, image):
        assert run(root, look, layered) == "one\ngone\ngone\n"
    assert run(tree, "echo two > /opt/a/c; rm -r /opt/a/b; echo >/etc/os-release", writable) == ""
    for root in (image, tree):
        assert run(root, "cat /opt/a/*; ls /etc/os-release", writable) == "two\n/etc/os-release\n"
