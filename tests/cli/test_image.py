"""`jupyter apptainer image …` and `registry …` as people run them, and a kernel whose image is a name."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

from jupyter_apptainer.cli.main import main
from jupyter_apptainer.images.records import build_record, iter_records, remove_record, save_record
from jupyter_apptainer.images.reference import parse_reference
from jupyter_apptainer.places import Places
from jupyter_apptainer.tasks.store import forget_task, iter_tasks
from tests.laboratory import Lab
from tests.registry import PASSWORD, USER, OciImage, Registry


class Cli:
    """Runs a command line and keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.err = ""

    def __call__(self, *words: str | Path, code: int = 0) -> str:
        self._capsys.readouterr()
        found = main(list(map(str, words)))
        out, self.err = self._capsys.readouterr()
        assert found == code, (found, out, self.err)
        return out

    def json(self, *words: str | Path) -> Any:
        return json.loads(self(*words, "--json"))


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, places: Places, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An account of its own: home, settings, kernels, the engine's keys and passwords. The images folder is the tests'."""
    folder = tmp_path / "home/images"
    folder.mkdir(parents=True)
    (tmp_path / "config").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "config"))
    for name in ("CONFIGDIR", "CACHEDIR"):
        monkeypatch.setenv(f"APPTAINER_{name}", lab.environ[f"APPTAINER_{name}"])
        monkeypatch.setenv(f"SINGULARITY_{name}", lab.environ[f"SINGULARITY_{name}"])
    monkeypatch.chdir(tmp_path)
    yield folder
    for record in iter_records(places):
        remove_record(places, record.path)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def add_kernel(cli: Cli, name: str, image: str | Path) -> None:
    cli("kernel", "add", name, image, "--no-check")


def test_pulled_image_is_listed_inspected_and_removed(
    cli: Cli, desk: Path, registry: Registry, oci_image: OciImage
) -> None:
    uri = f"docker://{registry.host}/lab/tiny:1"
    assert cli("image", "pull", uri) == f"{desk}/tiny_1.sif\n"
    assert cli.err.splitlines()[0] == "Asking the registry"
    assert cli.err.splitlines()[-1] == f"Digest: {oci_image.manifest}"
    assert cli.json("image", "pull", uri)["how"] == "kept"
    (row,) = [row for row in cli.json("image", "list") if row["path"].startswith(str(desk))]
    assert (row["origin"], row["digest"], row["compression"]) == (uri, oci_image.manifest, "lz4")
    assert (row["kernels"], row["python"], row["signatures"]) == ([], None, [])
    shown = cli("image", "inspect", uri)
    assert f"digest        {oci_image.manifest}" in shown
    assert "org.example.title: tiny" in shown
    assert "org.example.title: tiny" in cli("image", "inspect", desk / "tiny_1.sif")
    assert "bootstrap: docker" in cli("image", "recipe", uri)
    cli("image", "remove", uri, code=1)
    assert "-y" in cli.err
    assert cli("image", "remove", "-y", uri) == f"{desk}/tiny_1.sif\n"
    assert not list(desk.iterdir())
    cli("image", "inspect", uri, code=1)
    assert f"jupyter apptainer image pull {uri}" in cli.err


def test_table_names_what_uses_an_image(cli: Cli, desk: Path, small_sif: Path, tmp_path: Path) -> None:
    shutil.copy(small_sif, desk / "lab.sif")
    add_kernel(cli, "lab", desk / "lab.sif")
    add_kernel(cli, "gone", tmp_path / "gone.sif")
    lines = {line.split()[0]: line for line in cli("image", "list").splitlines()}
    assert list(lines["IMAGE"].split()) == [
        *("IMAGE", "SIZE", "MODIFIED", "PYTHON", "IPYKERNEL", "COMPRESSION", "SIGNED", "KERNELS", "ORIGIN")
    ]
    assert " zstd " in lines[f"{desk}/lab.sif"]
    assert " lab " in lines[f"{desk}/lab.sif"]
    assert "there is no image" in lines[f"{tmp_path}/gone.sif"]


def test_image_of_a_kernelspec_is_not_removed(cli: Cli, desk: Path, small_sif: Path) -> None:
    image = Path(shutil.copy(small_sif, desk / "lab.sif"))
    add_kernel(cli, "lab", image)
    os.symlink(image, desk / "link.sif")
    cli("image", "remove", "-y", image, code=1)
    assert "in use by the kernel lab" in cli.err
    assert "jupyter apptainer kernel remove lab" in cli.err
    assert image.exists()
    cli("image", "remove", "-y", "--force", desk / "link.sif")
    assert image.exists()
    cli("image", "remove", "-y", "--force", image)
    assert not image.exists()


def test_folder_that_only_looks_like_an_image_is_not_removed(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "tree/bin").mkdir(parents=True)
    (tmp_path / "tree/bin/sh").touch()
    cli("image", "remove", "-y", tmp_path / "tree", code=1)
    assert "was not made by the engine" in cli.err
    assert (tmp_path / "tree/bin/sh").exists()
    (tmp_path / "tree/.singularity.d").mkdir()
    cli("image", "remove", "-y", tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_kernel_whose_image_is_a_name_runs_in_the_pulled_file(
    cli: Cli, places: Places, starter_image: Path, tmp_path: Path
) -> None:
    uri = "oras://registry.example.org/lab/starter:1"
    cli("kernel", "add", "lab", uri, code=1)
    assert f"jupyter apptainer image pull {uri}" in cli.err
    image = tmp_path / "starter.sif"
    os.symlink(starter_image, image)
    save_record(places, build_record(parse_reference(uri), "sha256:" + "5e" * 32, str(image), time.time()))
    cli("kernel", "add", "lab", uri)
    assert all(finding["status"] == "ok" for finding in cli.json("kernel", "show", "lab")["findings"])
    assert str(image) in cli("kernel", "explain", "lab")
    manager = KernelManager(kernel_name="lab")
    manager.start_kernel(cwd=str(tmp_path))
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        (row,) = [row for row in cli.json("image", "list") if row["path"] == str(image)]
        assert row["kernels"] == ["lab"]
        assert row["ipykernel"]
        cli("image", "remove", "-y", "--force", uri, code=1)
        assert "in use by the kernel of" in cli.err
        assert image.exists()
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_difference_and_recipe(cli: Cli, small_sif: Path, starter_image: Path) -> None:
    text = cli("image", "diff", small_sif, starter_image)
    assert "label org.example.purpose" in text
    assert "-%labels" in text
    found = cli.json("image", "diff", small_sif, starter_image)
    assert {"topic": "compression", "first": "zstd", "second": "lz4"} in found["differences"]
    assert cli("image", "diff", small_sif, small_sif).splitlines() == ["  A  B"]
    assert "%apprun tide" in cli.json("image", "recipe", small_sif)["definition"]
    assert cli.json("image", "inspect", small_sif)["apps"] == ["shore", "tide"]


def test_signing_and_verifying(
    cli: Cli, key: Lab, small_sif: Path, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = shutil.copy(small_sif, desk / "lab.sif")
    cli("image", "verify", "--local", image, code=1)
    assert "is not signed" in cli.err
    monkeypatch.setattr(sys, "stdin", io.StringIO("sea salt\n"))
    assert cli("image", "sign", image) == f"{image}\n"
    assert "signed by Ada" in cli("image", "verify", "--local", image)
    (signer,) = cli.json("image", "verify", "--local", image)
    assert signer["is_intact"]
    assert cli.json("image", "inspect", image)["signatures"][0]["fingerprint"] == signer["fingerprint"]


def test_registry_of_a_site_is_set_up_once(
    cli: Cli,
    registry: Registry,
    closed_registry: Registry,
    oci_image: OciImage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = f"c.ApptainerConfig.ca_bundle = {str(closed_registry.certificate)!r}\nc.ApptainerConfig.image_dirs = ['$HOME/shelf']\n"
    (tmp_path / "config/jupyter_apptainer_config.py").write_text(lines)
    (tmp_path / "home/shelf").mkdir()
    uri = f"docker://{closed_registry.host}/lab/tiny:1"
    for password, code in (("", 2), ("wrong\n", 1), (f"{PASSWORD}\n", 0)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(password))
        cli("registry", "login", closed_registry.host, "-u", USER, code=code)
        assert PASSWORD not in cli.err
    assert cli("image", "pull", uri) == f"{tmp_path}/home/shelf/tiny_1.sif\n"
    pushed = cli("image", "push", uri, f"oras://{closed_registry.host}/lab/copy:1").strip()
    assert cli("image", "pull", pushed, "copy.sif") == f"{tmp_path}/copy.sif\n"
    assert (tmp_path / "copy.sif").read_bytes() == (tmp_path / "home/shelf/tiny_1.sif").read_bytes()
    cli("registry", "logout", f"docker://{closed_registry.host}")
    cli("image", "pull", uri, "other.sif", "--force", code=1)
    assert "registry login" in cli.err


def test_cleaning_tells_and_keeps_images(cli: Cli, desk: Path, small_sif: Path, places: Places) -> None:
    image = Path(shutil.copy(small_sif, desk / "lab.sif"))
    save_record(places, build_record(parse_reference("docker://lab/tools:1"), "", str(image), time.time()))
    image.write_bytes(small_sif.read_bytes() + b" ")
    assert [row["path"] for row in cli.json("image", "clean", "--dry-run")].count(str(image)) == 1
    assert str(image) in cli("image", "clean", "--engine-cache")
    assert image.exists()
    assert str(image) not in cli("image", "clean")


@pytest.mark.user  # the same for every user
def test_an_unpacked_copy_is_made_shown_and_removed(
    cli: Cli, desk: Path, small_sif: Path, places: Places, tmp_path: Path
) -> None:
    image = Path(shutil.copy(small_sif, desk / "lab.sif"))
    cli("image", "unpack", image, code=2)
    assert "c.ApptainerConfig.unpacked_images" in cli.err
    settings = tmp_path / "config/jupyter_apptainer_config.py"
    settings.write_text("c.ApptainerConfig.unpacked_images = 'much'\n")
    cli("image", "unpack", image, code=2)
    assert "'much' is not a size" in cli.err

    lines = "c.ApptainerConfig.unpacked_images = '1G'\nc.ApptainerConfig.task_niceness = 0\n"
    settings.write_text(f"{lines}c.ApptainerConfig.unpacked_images_dir = '$HOME/scratch'\n")
    made = cli.json("image", "unpack", image)
    tree = Path(made["path"])
    assert str(tree).startswith(f"{tmp_path}/home/scratch/jpa-{os.getuid()}/unpacked/")
    assert (made["image"], made["current"], tree.name) == (str(image), True, "lab.sif")
    assert cli("image", "unpack", image).strip() == str(tree)
    assert cli.json("image", "inspect", image)["unpacked"]["path"] == str(tree)
    assert f"unpacked      {tree}, " in cli("image", "inspect", image)
    (row,) = [row for row in cli.json("image", "list") if row["path"] == str(image)]
    assert row["unpacked"]["copy"] == made["copy"]
    assert "UNPACKED" in cli("image", "list")
    assert [row["path"] for row in cli.json("image", "cache") if "copy" in row] == [str(tree)]
    assert f"{image}\n" in cli("image", "cache")

    # It goes with its image, by request, and where there shall be none.
    assert cli.json("image", "cache", "prune", "--only", "layers", "--all") == []
    assert cli.json("image", "cache", "prune", "--only", "copies", "--all")[0]["copy"] == made["copy"]
    assert not tree.exists()
    cli("image", "unpack", image)
    half = tree.parent.parent / ".new-half"
    half.mkdir()
    cli("gc", "--dry-run")
    assert half.exists()
    cli("gc")
    assert (half.exists(), tree.exists()) == (False, True)
    settings.write_text(lines.replace("1G", "0") + "c.ApptainerConfig.unpacked_images_dir = '$HOME/scratch'\n")
    cli("gc")
    assert not tree.exists()
    settings.write_text(f"{lines}c.ApptainerConfig.unpacked_images_dir = '$HOME/scratch'\n")
    cli("image", "unpack", image)
    cli("image", "remove", "-y", image)
    assert "of an unpacked copy given back" in cli.err
    assert not tree.exists()
    for task in list(iter_tasks(places)):
        if task.spec.kind == "image-unpack":
            forget_task(places, task.id)
