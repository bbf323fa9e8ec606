"""Kernels inside an image, found by the real engine; layers above the starter image bring what it lacks."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.errors import ImageInvalid, ImageNotFound
from jupyter_apptainer.images.kernelspecs import ImageKernelspec, find_kernelspecs
from jupyter_apptainer.images.probe import PROBE_OPTIONS

SHELL_KERNEL = {"argv": ["sh", "{resource_dir}/k", "{connection_file}"], "display_name": "Shell", "language": "sh"}


def write_kernel(layer: Path, folder: str, text: str = "") -> Path:
    target = layer / "upper" / folder.lstrip("/")
    target.mkdir(parents=True)
    (target / "kernel.json").write_text(text or json.dumps(SHELL_KERNEL))
    return target


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    folder = tmp_path / "layer"
    (folder / "upper").mkdir(parents=True)
    (folder / "work").mkdir()
    return folder


def find(engine: EngineInfo, image: Path, tmp_path: Path, *layers: Path) -> dict[str, ImageKernelspec]:
    copies = tmp_path / "copies"
    copies.mkdir()
    options = replace(PROBE_OPTIONS, overlays=tuple(map(str, layers)))
    return {found.folder: found for found in find_kernelspecs(engine, str(image), copies, os.environ, options=options)}


def test_kernels_are_found_where_jupyter_and_others_put_them(
    engine: EngineInfo, starter_image: Path, tmp_path: Path, layer: Path
) -> None:
    folders = [
        "/usr/share/jupyter/kernels/a b",
        "/usr/local/share/jupyter/kernels/b",
        "/opt/conda/share/jupyter/kernels/c",
        "/opt/conda/envs/x/share/jupyter/kernels/d",
        "/usr/lib/R/site-library/IRkernel/kernelspec",
    ]
    for folder in folders:
        write_kernel(layer, folder)
    logo = layer / "upper/usr/local/share/jupyter/kernels/b/logo-64x64.png"
    logo.write_bytes(b"\x89PNG\r\n\x1a\n\0\xff")
    write_kernel(layer, "/usr/share/jupyter/kernels/broken", "{")
    (layer / "upper/opt/conda/envs/x/bin").mkdir()
    (layer / "upper/opt/conda/envs/x/bin/python").symlink_to("/usr/bin/python3")
    found = find(engine, starter_image, tmp_path, layer)
    assert set(folders) < set(found)
    assert [found[folder].document for folder in folders] == [SHELL_KERNEL] * len(folders)
    assert found["/usr/share/jupyter/kernels/broken"].document is None
    assert found["/opt/conda/envs/x/share/jupyter/kernels/d"].python == "/opt/conda/envs/x/bin/python"
    assert found["/usr/share/jupyter/kernels/a b"].python is None
    copy = found["/usr/local/share/jupyter/kernels/b"].copy
    assert (copy / logo.name).read_bytes() == logo.read_bytes()


def test_kernel_of_the_images_own_python_comes_first(engine: EngineInfo, starter_image: Path, tmp_path: Path) -> None:
    first, *_ = find(engine, starter_image, tmp_path).values()
    assert first.document
    assert first.document["language"] == "python"
    assert first.folder == "/opt/venv/share/jupyter/kernels/python3"
    assert first.python == "/opt/venv/bin/python"


def test_image_without_a_shell_says_what_to_do(engine: EngineInfo, tmp_path: Path) -> None:
    for folder in (".singularity.d", "dev", "etc", "proc", "root", "sys", "tmp", "var/tmp"):
        (tmp_path / "empty" / folder).mkdir(parents=True)
    with pytest.raises(ImageInvalid, match="has no shell"):
        find(engine, tmp_path / "empty", tmp_path)


def test_missing_image_is_named(engine: EngineInfo, tmp_path: Path) -> None:
    with pytest.raises(ImageNotFound):
        find(engine, tmp_path / "no.sif", tmp_path)


def test_program_of_a_hostile_image_reads_nothing_of_the_host(
    engine: EngineInfo, starter_image: Path, tmp_path: Path, layer: Path
) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"argv": ["secret"]}')
    write_kernel(layer, "/usr/share/jupyter/kernels/a")
    (layer / "upper/usr/share/jupyter/kernels/a/logo-svg.svg").touch()
    copy = layer / "upper/usr/bin/cp"
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(f'#!/bin/sh\nln -s {secret} "$2/${{1##*/}}"\nmkdir -p "$2/../x"\n')
    copy.chmod(0o755)
    found = find(engine, starter_image, tmp_path, layer)
    kernelspec = found["/usr/share/jupyter/kernels/a"]
    assert kernelspec.document is None
    assert list(kernelspec.copy.glob("logo-*")) == []
