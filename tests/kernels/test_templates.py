"""What becomes of a kernel.json that was made for something else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from jupyter_apptainer.errors import SpecError
from jupyter_apptainer.images.kernelspecs import ImageKernelspec
from jupyter_apptainer.kernels.templates import (
    KernelTemplate,
    find_engine_line,
    load_installed,
    read_image_kernelspecs,
    read_installed,
)

IR = {
    "argv": ["R", "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"],
    "display_name": "R",
    "language": "R",
}


@pytest.fixture
def found(tmp_path: Path) -> Callable[..., ImageKernelspec]:
    def make(folder: str, document: Mapping[str, Any] | None, python: str | None = None) -> ImageKernelspec:
        return ImageKernelspec(folder, document, python, tmp_path)

    return make


def read_one(kernelspec: ImageKernelspec) -> KernelTemplate:
    (template,) = read_image_kernelspecs([kernelspec])
    return template


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., KernelTemplate]:
    """Install a kernelspec on this host and read it as a template."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))

    def install(document: Mapping[str, Any], *logos: str) -> KernelTemplate:
        folder = tmp_path / "kernels/x"
        folder.mkdir(parents=True)
        (folder / "kernel.json").write_text(json.dumps(document))
        for logo in logos:
            (folder / logo).touch()
        return read_installed("x", *load_installed("x"))

    return install


def list_texts(template: KernelTemplate, level: str) -> list[str]:
    return [remark.text for remark in template.remarks if remark.level == level]


# --- inside an image


def test_kernel_of_an_image_is_taken_as_it_is(found: Callable[..., ImageKernelspec], tmp_path: Path) -> None:
    (tmp_path / "logo-64x64.png").touch()
    template = read_one(found("/usr/share/jupyter/kernels/ir", {**IR, "env": {"A": "1"}, "metadata": {"x": 1}}))
    assert (template.name, template.display_name, template.language) == ("ir", "R", "R")
    assert template.config == {"command": IR["argv"], "env": {"A": "1"}}
    assert (template.interrupt_mode, template.metadata, template.logos) == ("signal", {"x": 1}, tmp_path)
    assert template.remarks == []


@pytest.mark.parametrize(
    ("argv", "python", "expected"),
    [
        (["python", "-m", "k", "{connection_file}"], "/opt/e/bin/python", "/opt/e/bin/python"),
        (["python3.11", "-m", "k", "{connection_file}"], "/opt/e/bin/python", "/opt/e/bin/python"),
        (["python", "-m", "k", "{connection_file}"], None, "python"),
        (["/usr/bin/python", "-m", "k", "{connection_file}"], "/opt/e/bin/python", "/usr/bin/python"),
    ],
)
def test_plain_python_is_that_of_the_kernels_environment(
    found: Callable[..., ImageKernelspec], argv: list[str], python: str | None, expected: str
) -> None:
    command = read_one(found("/opt/e/share/jupyter/kernels/p", {"argv": argv}, python)).config["command"]
    assert command == [expected, *argv[1:]]


def test_resources_of_a_kernel_are_those_in_the_image(found: Callable[..., ImageKernelspec]) -> None:
    document = {"argv": ["sh", "{resource_dir}/run", "{connection_file}"]}
    command = read_one(found("/opt/kernels/s", document)).config["command"]
    assert command == ["sh", "/opt/kernels/s/run", "{connection_file}"]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"argv": ["java", "{connection_file}"], "interrupt_mode": "message"}, "message"),
        ({"argv": ["java", "{connection_file}"], "interrupt_mode": "signal"}, "signal"),
        ({"argv": ["java", "{connection_file}"]}, "signal"),
        ({"argv": ["python", "{connection_file}"]}, "message"),
    ],
)
def test_kernel_is_interrupted_as_it_asks_for(
    found: Callable[..., ImageKernelspec], document: dict[str, Any], expected: str
) -> None:
    assert read_one(found("/k/x", document)).interrupt_mode == expected


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (None, "is not a JSON object"),
        ({}, "has no argv"),
        ({"argv": []}, "has no argv"),
        ({"argv": "R"}, "has no argv"),
        ({"argv": ["R"]}, "contains {connection_file}"),
    ],
)
def test_broken_kernel_is_listed_with_what_is_wrong(
    found: Callable[..., ImageKernelspec], document: dict[str, Any] | None, text: str
) -> None:
    template = read_one(found("/k/x", document))
    assert template.name == "x"
    assert any(text in error for error in list_texts(template, "error"))


def test_same_kernel_in_two_places_is_one(found: Callable[..., ImageKernelspec]) -> None:
    places = ["/usr/share/jupyter/kernels/ir", "/usr/lib/R/site-library/IRkernel/kernelspec"]
    assert [t.source for t in read_image_kernelspecs(found(place, IR) for place in places)] == places[:1]
    assert read_one(found(places[1], IR)).name == "ir"


# --- on the host


def test_program_of_the_host_becomes_the_images(install: Callable[..., KernelTemplate]) -> None:
    template = install({**IR, "argv": ["/usr/local/bin/R", *IR["argv"][1:]]}, "logo-svg.svg")
    assert template.config == {"command": IR["argv"]}
    assert template.logos
    assert ["/usr/local/bin/R is a path" in text for text in list_texts(template, "note")] == [True]


def test_variables_of_the_host_are_left_out(install: Callable[..., KernelTemplate]) -> None:
    env = {"PATH": "/x", "LD_LIBRARY_PATH": "/x", "A": "${PATH}:/y", "B": "1", "C": 2}
    template = install({**IR, "env": env})
    assert template.config["env"] == {"B": "1"}
    assert [text.split()[2] for text in list_texts(template, "note")] == ["PATH", "LD_LIBRARY_PATH", "A", "C"]


def test_files_of_the_kernelspec_are_bound(install: Callable[..., KernelTemplate], tmp_path: Path) -> None:
    template = install({**IR, "argv": ["sh", "{resource_dir}/run", "{connection_file}"]})
    folder = tmp_path / "kernels/x"
    assert template.config == {
        "command": ["sh", f"{folder}/run", "{connection_file}"],
        "binds": [f"{folder}:{folder}:ro"],
    }
    assert list_texts(template, "error") == []


def test_other_path_of_the_host_is_a_mistake_that_a_command_settles(install: Callable[..., KernelTemplate]) -> None:
    template = install({**IR, "argv": ["java", "-jar", "/usr/bin/env", "--config=/etc/passwd", "{connection_file}"]})
    assert [remark.about for remark in template.remarks if remark.level == "error"] == ["command", "command"]
    assert not template.remarks.without({"command"}).has_errors


def test_foreign_provisioner_is_left_out(install: Callable[..., KernelTemplate]) -> None:
    metadata = {"kernel_provisioner": {"provisioner_name": "ssh-provisioner"}, "debugger": True}
    template = install({**IR, "metadata": metadata})
    assert template.metadata == {"debugger": True}
    assert ["ssh-provisioner" in text for text in list_texts(template, "note")] == [True]


def test_kernelspec_that_starts_the_engine_is_a_command_line() -> None:
    argv = [
        "/usr/bin/singularity",
        "exec",
        "-B",
        "/a b",
        "x.sif",
        "python",
        "-m",
        "ipykernel",
        "-f",
        "{connection_file}",
    ]
    assert find_engine_line({"argv": argv}) == (
        "/usr/bin/singularity exec -B '/a b' x.sif python -m ipykernel -f '{connection_file}'"
    )
    assert find_engine_line(IR) is None


def test_missing_kernel_names_those_that_exist(install: Callable[..., KernelTemplate]) -> None:
    install(IR)
    with pytest.raises(SpecError) as caught:
        load_installed("y")
    assert "x" in str(caught.value.hint)


def test_kernel_of_jupyters_own_python_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("jupyter_client.kernelspec.jupyter_path", lambda *_: [])
    template = read_installed("python3", *load_installed("python3"))
    assert template.language == "python"
    assert template.config["command"][1:3] == ["-m", "ipykernel_launcher"]  # type: ignore[index]  # a list of words
