"""Wheels for another Python, fetched by the real pip from a folder."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from jupyter_apptainer.engine.step import StepError
from jupyter_apptainer.images.wheels import (
    Target,
    Wheel,
    download_wheels,
    find_conflicts,
    list_platforms,
    parse_requirements,
    unpack_wheel,
)

# The same for every user.
pytestmark = pytest.mark.user

OLD = Target("3.9.2", "cp39", "glibc2.31", "x86_64")
NEW = Target("3.99.1", "cp399", "glibc2.99", "x86_64")


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder that pip takes for its only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    add_wheel(folder, "kernel", "1.0", "loop<5", "base")
    add_wheel(
        folder, "kernel", "2.0", "loop>=5", "base", "backport; python_version < '3.10'", "new; python_version > '3.98'"
    )
    add_wheel(folder, "loop", "4.0")
    add_wheel(folder, "loop", "6.0")
    add_wheel(folder, "base", "1.0", tag="cp39-cp39-manylinux_2_28_x86_64")
    add_wheel(folder, "base", "1.0", tag="cp39-cp39-manylinux_2_35_x86_64")
    add_wheel(folder, "base", "1.0", tag="cp399-cp399-manylinux_2_35_x86_64")
    add_wheel(folder, "backport", "1.0", "deeper; python_version < '3.10'")
    add_wheel(folder, "deeper", "1.0")
    add_wheel(folder, "new", "1.0")
    return folder


def add_wheel(
    folder: Path,
    name: str,
    version: str,
    *requires: str,
    tag: str = "py3-none-any",
    modules: tuple[str, ...] = (),
) -> None:
    """Write a wheel; its modules know their version."""
    path = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"]
    lines += [f"Requires-Dist: {line}\n" for line in requires]
    with zipfile.ZipFile(path, "w") as archive:
        for module in modules or (f"{name}.py",):
            archive.writestr(module, f"__version__ = '{version}'\n")
        archive.writestr(f"{name}-{version}.data/platlib/{name}_fast.py", "")
        archive.writestr(f"{name}-{version}.data/scripts/{name}", "")
        archive.writestr(f"{info}/METADATA", "".join(lines))
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")


def fetch(index: Path, target: Target, installed: Mapping[str, str] | None = None) -> dict[str, Wheel]:
    scratch = index.parent / "scratch"
    scratch.mkdir()
    environ = {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}
    wheels = download_wheels(["kernel"], target, scratch, environ=environ, installed=installed)
    return {wheel.name: wheel for wheel in wheels}


@pytest.mark.parametrize(
    ("target", "names", "base"),
    [
        pytest.param(OLD, {"kernel", "loop", "base", "backport", "deeper"}, "cp39-cp39-manylinux_2_28", id="3.9"),
        pytest.param(NEW, {"kernel", "loop", "base", "new"}, "cp399-cp399-manylinux_2_35", id="3.99"),
    ],
)
def test_conditions_and_files_are_those_of_the_other_python(
    index: Path, target: Target, names: set[str], base: str
) -> None:
    found = fetch(index, target)
    assert set(found) == names
    assert (found["kernel"].version, found["loop"].version) == ("2.0", "6.0")
    assert base in found["base"].path.name


def test_what_is_installed_is_kept_and_what_fits_it_is_chosen(index: Path) -> None:
    odd = {"odd": "not-a-version", "../../odd": "1", "odd\n--index-url http://x/ y": "1"}
    found = fetch(index, OLD, {"Loop": "4.5", "deeper": "0.1", **odd})
    assert (index.parent / "scratch/constraints.txt").read_text() == "loop==4.5\ndeeper==0.1\n"
    assert {name: wheel.version for name, wheel in found.items()} == {"kernel": "1.0", "base": "1.0"}


def test_pips_own_reason_is_passed_on(index: Path) -> None:
    with pytest.raises(StepError, match=r"^Cannot install kernel"):
        fetch(index, Target("3.9.2", "cp39", "musl", "x86_64"))


def test_programs_and_data_are_not_unpacked(index: Path, tmp_path: Path) -> None:
    wheel = Wheel(index / "loop-4.0-py3-none-any.whl", "loop", "4.0", ())
    unpack_wheel(wheel, tmp_path / "packages")
    files = {
        str(path.relative_to(tmp_path / "packages")) for path in (tmp_path / "packages").rglob("*") if path.is_file()
    }
    assert files == {
        "loop.py",
        "loop_fast.py",
        *(f"loop-4.0.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD")),
    }


def test_platforms_reach_from_the_images_library_to_the_oldest() -> None:
    assert list_platforms(Target("3.9.2", "cp39", "glibc2.19", "aarch64")) == (
        "manylinux_2_19_aarch64",
        "manylinux_2_18_aarch64",
        "manylinux_2_17_aarch64",
        "manylinux2014_aarch64",
    )
    assert list_platforms(Target("3.12.0", "cp312", "musl", "x86_64"))[0] == "musllinux_1_2_x86_64"


def test_conditions_are_looked_up_in_the_target() -> None:
    lines = [
        "a>1; python_version<'3.10'",
        "b; extra == 'doc'",
        "c; sys_platform == 'win32'",
        "d",
        "broken requirement ;;",
    ]
    assert parse_requirements(lines, OLD) == ("a>1", "d")
    assert parse_requirements(lines, NEW) == ("d",)


@pytest.mark.parametrize(
    ("installed", "conflicts"),
    [
        ({}, 0),
        ({"Some_Loop": "5.0"}, 0),
        ({"some-loop": "4.9"}, 1),
        ({"some.loop": "5.1rc1"}, 0),
        ({"some-loop": "unknown"}, 0),
        # An own kernel is used with its own requirements.
        ({"kernel": "0.1", "some-loop": "4.9"}, 0),
    ],
)
def test_conflicts_are_versions_that_the_lent_packages_could_not_use(installed: dict[str, str], conflicts: int) -> None:
    found = find_conflicts({"kernel": ["some-loop>=5"], "some-loop": ["kernel>99"]}, installed)
    assert len(found) == conflicts
