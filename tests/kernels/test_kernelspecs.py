"""Kernelspecs on disk, seen by the real KernelSpecManager."""

from __future__ import annotations

import json
import os
import stat
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from jupyter_client import kernelspec as jupyter_kernelspec
from jupyter_client.kernelspec import KernelSpecManager

from jupyter_apptainer.errors import SpecError
from jupyter_apptainer.kernels.kernelspecs import (
    add_kernelspec,
    build_display_name,
    check_name,
    edit_kernelspec,
    find_logos,
    get_kernelspec,
    iter_kernelspecs,
    remove_kernelspec,
)
from jupyter_apptainer.kernels.spec import BindWish, ContainerSpec

SPEC = ContainerSpec(image="/images/lab.sif", binds=(BindWish("/data", "/data", "ro"),))


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(folder))
    return folder


def read(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "kernel.json").read_text(encoding="utf-8"))
    return document


def write_foreign(data_dir: Path, name: str) -> Path:
    folder = data_dir / "kernels" / name
    folder.mkdir(parents=True)
    document = {"argv": ["python", "{connection_file}"], "display_name": name, "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(document))
    return folder


def test_jupyter_finds_the_kernelspec_and_its_provisioner() -> None:
    folder = add_kernelspec("Lab", SPEC, display_name="My lab", debugger=True, curve=True)
    found = KernelSpecManager().get_kernel_spec("lab")
    assert found.resource_dir == str(folder)
    assert found.display_name == "My lab"
    assert found.language == "python"
    assert found.interrupt_mode == "message"
    assert found.argv == [
        sys.executable,
        *("-m", "jupyter_apptainer.launch", "--kernel", str(folder), "-f", "{connection_file}"),
    ]
    assert found.metadata == {
        "debugger": True,
        "supported_encryption": ["curve"],
        "kernel_provisioner": {
            "provisioner_name": "apptainer-provisioner",
            "config": {"image": "/images/lab.sif", "binds": ["/data:/data:ro"]},
        },
    }
    assert "lab" in KernelSpecManager().get_all_specs()


def test_debugger_and_encryption_are_announced_only_where_they_exist() -> None:
    metadata = read(add_kernelspec("lab", SPEC))["metadata"]
    assert list(metadata) == ["kernel_provisioner"]


@pytest.mark.parametrize(("language", "kind"), [("python", "python"), ("R", "other"), ("julia", "other")])
def test_logos_are_those_of_the_language_in_the_sizes_that_jupyter_wants(language: str, kind: str) -> None:
    folder = add_kernelspec("lab", SPEC, language=language)
    assert find_logos(language).name == kind
    for size in (32, 64):
        data = (folder / f"logo-{size}x{size}.png").read_bytes()
        assert data == (find_logos(language) / f"logo-{size}x{size}.png").read_bytes()
        assert struct.unpack(">II", data[16:24]) == (size, size)
    assert (folder / "logo-svg.svg").read_text().startswith("<svg")


def test_logos_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "logo-32x32.png").write_bytes(b"mine")
    folder = add_kernelspec("lab", SPEC, logos=tmp_path)
    assert [logo.name for logo in folder.glob("logo-*")] == ["logo-32x32.png"]


@pytest.mark.parametrize(
    ("scope", "expected"),
    [("user", "data/kernels/lab"), ("prefix", "prefix/share/jupyter/kernels/lab")],
)
def test_scope_chooses_the_folder(tmp_path: Path, scope: str, expected: str) -> None:
    where = tmp_path / "prefix" if scope == "prefix" else scope
    assert add_kernelspec("lab", SPEC, scope=where) == tmp_path / expected


def test_scope_sys_prefix_is_this_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    assert add_kernelspec("lab", SPEC, scope="sys-prefix") == tmp_path / "env/share/jupyter/kernels/lab"


@pytest.mark.parametrize("name", ["lab", "Lab.2", "a_b-c", "", "a b", "ä", "a/b", "x\n", "a:b"], ids=repr)
def test_names_follow_jupyters_rule(name: str) -> None:
    if jupyter_kernelspec._is_valid_kernel_name(name) and "\n" not in name:
        assert check_name(name) == name.lower()
    else:
        with pytest.raises(SpecError, match="cannot be the name"):
            check_name(name)


@pytest.mark.parametrize("name", [".", ".."])
def test_names_cannot_leave_the_folder(name: str) -> None:
    with pytest.raises(SpecError, match="cannot be the name"):
        add_kernelspec(name, SPEC)


def test_taken_name_is_kept_without_replace() -> None:
    folder = add_kernelspec("lab", SPEC)
    with pytest.raises(SpecError, match="already") as caught:
        add_kernelspec("LAB", ContainerSpec(image="/other.sif"))
    assert "--replace" in str(caught.value)
    assert read(folder)["metadata"]["kernel_provisioner"]["config"]["image"] == "/images/lab.sif"
    add_kernelspec("lab", ContainerSpec(image="/other.sif"), replace=True)
    assert read(folder)["metadata"]["kernel_provisioner"]["config"] == {"image": "/other.sif"}


def test_replace_keeps_what_lies_beside_kernel_json() -> None:
    folder = add_kernelspec("lab", SPEC)
    (folder / "overlay.img").write_text("precious")
    add_kernelspec("lab", SPEC, replace=True)
    assert (folder / "overlay.img").read_text() == "precious"


def test_kernels_of_others_are_neither_listed_nor_touched(data_dir: Path) -> None:
    folder = write_foreign(data_dir, "theirs")
    before = read(folder)
    assert list(iter_kernelspecs()) == []
    for action in (
        lambda: add_kernelspec("theirs", SPEC, replace=True),
        lambda: edit_kernelspec("theirs", {"nv": True}),
        lambda: remove_kernelspec("theirs"),
        lambda: get_kernelspec("theirs"),
    ):
        with pytest.raises(SpecError, match="not a container"):
            action()
    assert read(folder) == before


def test_listing_is_by_name_and_leaves_out_what_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    monkeypatch.setenv("JUPYTER_PATH", str(site))
    for name in ("b", "a"):
        add_kernelspec(name, SPEC)
    hidden = add_kernelspec("a", ContainerSpec(image="/site.sif"), scope=tmp_path / "x")
    (site / "kernels").mkdir(parents=True)
    hidden.rename(site / "kernels" / "a")
    found = list(iter_kernelspecs())
    assert [spec.name for spec in found] == ["a", "b"]
    assert found[0].folder == site / "kernels" / "a" == Path(KernelSpecManager().get_kernel_spec("a").resource_dir)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"metadata": []}', '{"metadata": {"kernel_provisioner": 1}}'])
def test_broken_kernel_json_of_others_does_no_harm(data_dir: Path, content: str) -> None:
    folder = write_foreign(data_dir, "broken")
    (folder / "kernel.json").write_text(content)
    assert list(iter_kernelspecs()) == []


def test_unknown_name_comes_with_the_nearest_one() -> None:
    add_kernelspec("starter", SPEC)
    with pytest.raises(SpecError, match="no container kernel startr") as caught:
        get_kernelspec("startr")
    assert caught.value.hint == "did you mean starter?"


def test_edit_changes_what_was_asked_for_and_keeps_the_rest() -> None:
    folder = add_kernelspec("lab", SPEC, debugger=True)
    document = read(folder)
    document["env"] = {"BY_HAND": "1"}
    document["argv"].append("--by-hand")
    document["metadata"]["site"] = {"cost": 3}
    document["metadata"]["kernel_provisioner"]["note"] = "ours"
    (folder / "kernel.json").write_text(json.dumps(document))

    edit_kernelspec("lab", {"nv": True, "binds": None}, display_name="Ünï", debugger=False)

    expected = document | {"display_name": "Ünï"}
    expected["metadata"].pop("debugger")
    expected["metadata"]["kernel_provisioner"]["config"] = {"image": "/images/lab.sif", "nv": True}
    assert read(folder) == expected


def test_edit_that_would_be_wrong_changes_nothing() -> None:
    folder = add_kernelspec("lab", SPEC)
    before = (folder / "kernel.json").read_bytes()
    with pytest.raises(SpecError, match="the kernel lab is wrong: nv"):
        edit_kernelspec("lab", {"nv": "yes"})
    with pytest.raises(SpecError, match="image: missing"):
        edit_kernelspec("lab", {"image": None})
    assert (folder / "kernel.json").read_bytes() == before
    assert not [file for file in folder.iterdir() if file.name.startswith(".")]


def test_permissions_follow_the_umask_and_survive_an_edit() -> None:
    before = os.umask(0o027)
    try:
        file = add_kernelspec("lab", SPEC) / "kernel.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
    finally:
        os.umask(before)
    file.chmod(0o600)
    edit_kernelspec("lab", {"nv": True})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_remove_takes_the_kernelspec_and_leaves_everything_else() -> None:
    folder = add_kernelspec("lab", SPEC)
    assert remove_kernelspec("lab") == folder
    assert not folder.exists()

    folder = add_kernelspec("lab", SPEC)
    (folder / "overlay.img").write_text("precious")
    remove_kernelspec("lab")
    assert [file.name for file in folder.iterdir()] == ["overlay.img"]
    assert list(iter_kernelspecs()) == []


def test_remove_of_a_link_removes_the_link(data_dir: Path, tmp_path: Path) -> None:
    elsewhere = add_kernelspec("lab", SPEC, scope=tmp_path / "shared")
    (data_dir / "kernels").mkdir(parents=True)
    (data_dir / "kernels/lab").symlink_to(elsewhere)
    remove_kernelspec("lab")
    assert (elsewhere / "kernel.json").exists()
    assert not (data_dir / "kernels/lab").exists()


def test_wrong_configuration_by_hand_is_reported_with_the_file(data_dir: Path) -> None:
    folder = add_kernelspec("lab", SPEC)
    document = read(folder)
    document["metadata"]["kernel_provisioner"]["config"] = {"imagee": 1}
    (folder / "kernel.json").write_text(json.dumps(document))
    with pytest.raises(SpecError) as caught:
        get_kernelspec("lab").parse()
    assert str(folder / "kernel.json") in caught.value.message


def test_relative_paths_are_taken_from_the_folder_of_kernel_json() -> None:
    folder = add_kernelspec("lab", ContainerSpec(image="lab.sif"))
    assert get_kernelspec("lab").resolve({}).image == str(folder / "lab.sif")


@pytest.mark.parametrize(
    ("image", "version", "taken", "expected"),
    [
        ("/i/starter.sif", "3.11.2", (), "Python 3.11 (starter.sif)"),
        ("/i/sandbox/", None, (), "Python (sandbox)"),
        ("docker://python:3.12", "3.12.1", (), "Python 3.12 (python:3.12)"),
        ("/i/a.sif", "3.11.2", ("Python 3.11 (a.sif)",), "Python 3.11 (a.sif, lab)"),
    ],
)
def test_display_names_tell_containers_apart(
    image: str, version: str | None, taken: tuple[str, ...], expected: str
) -> None:
    spec = ContainerSpec(image=image)
    assert build_display_name(spec, name="lab", language="python", version=version, taken=taken) == expected


@pytest.mark.parametrize(
    ("command", "wanted", "expected"),
    [
        (("python3", "{connection_file}"), None, "message"),
        (("R", "{connection_file}"), None, "signal"),
        (("java", "{connection_file}"), "message", "message"),
    ],
    ids=["python", "other", "other that asks for messages"],
)
def test_way_of_interrupting_suits_the_kernel(command: tuple[str, ...], wanted: str | None, expected: str) -> None:
    spec = ContainerSpec(image="/images/lab.sif", command=command)
    folder = add_kernelspec("lab", spec, metadata={"x": 1}, interrupt_mode=wanted)
    assert read(folder)["interrupt_mode"] == expected
    assert list(read(folder)["metadata"]) == ["x", "kernel_provisioner"]
