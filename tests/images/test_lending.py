"""Bundles of lent packages: made once, whole or not at all. With the real engine and the real pip; here it has no index."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.errors import ImageLacksIpykernel
from jupyter_apptainer.images.lending import can_lend, find_lent, lend_ipykernel
from jupyter_apptainer.images.probe import ImageProbe, probe_image
from jupyter_apptainer.places import Places
from tests.images.test_wheels import add_wheel

# The same for every user.
pytestmark = pytest.mark.user

COMMAND = ("python", "-I", "-S", "-m", "ipykernel_launcher", "-f", "{connection_file}")


@pytest.fixture
def own_places(places: Places, tmp_path: Path) -> Places:
    return replace(places, cache=tmp_path / "cache")


@pytest.fixture
def probe(engine: EngineInfo, starter_image: Path, own_places: Places) -> ImageProbe:
    """A Python without any package."""
    return probe_image(engine, str(starter_image), COMMAND, own_places, os.environ)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Packages that can be imported, and are quickly fetched."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, *requires in (("ipykernel", "loop>=5"), ("debugpy",), ("psutil",), ("loop",)):
        add_wheel(folder, name, "7.0", *requires, modules=(f"{name}/__init__.py", f"{name}/kernelapp.py"))
    add_wheel(folder, "ipykernel", "6.0", modules=("ipykernel/__init__.py", "ipykernel/kernelapp.py"))
    return folder


def build_environ(index: Path) -> dict[str, str]:
    return {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}


def test_a_bundle_is_made_once_compiled_and_known(
    engine: EngineInfo, starter_image: Path, own_places: Places, probe: ImageProbe, index: Path
) -> None:
    assert can_lend(probe)
    image = str(starter_image)
    assert find_lent(engine, image, COMMAND, probe, own_places) is None
    said: list[str] = []

    def lend(_: int) -> ImageProbe:
        return lend_ipykernel(engine, image, COMMAND, probe, own_places, build_environ(index), on_progress=said.append)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lend, range(2))
    assert first.lent == second.lent is not None
    assert first.ipykernel == "7.0"
    assert first.python_version == probe.python_version
    assert len([line for line in said if line.startswith("Fetching")]) == 1
    packages = Path(str(first.lent))
    assert list(packages.glob("ipykernel/__pycache__/*.pyc"))
    assert [path.name for path in packages.parent.parent.iterdir() if not path.name.startswith(".")] == [
        packages.parent.name
    ]
    assert find_lent(engine, image, COMMAND, probe, own_places) in (first, second)


def test_packages_of_the_image_decide_which_ipykernel_is_lent(
    engine: EngineInfo, starter_image: Path, own_places: Places, probe: ImageProbe, index: Path
) -> None:
    def lend(packages: dict[str, str]) -> Path:
        with_packages = replace(probe, packages=packages)
        lent = lend_ipykernel(engine, str(starter_image), COMMAND, with_packages, own_places, build_environ(index))
        return Path(str(lent.lent)).parent

    newest, fitting, again = lend({"loop": "5.1"}), lend({"loop": "4.0"}), lend({})
    assert newest == again != fitting
    versions = [json.loads((folder / "bundle.json").read_text())["versions"] for folder in (newest, fitting)]
    assert [found["ipykernel"] for found in versions] == ["7.0", "6.0"]
    assert "loop" not in versions[1]


def test_packages_that_no_ipykernel_fits_are_named(
    engine: EngineInfo, starter_image: Path, own_places: Places, probe: ImageProbe, index: Path
) -> None:
    (index / "ipykernel-6.0-py3-none-any.whl").unlink()
    unfit = replace(probe, packages={"loop": "4.0"})
    with pytest.raises(ImageLacksIpykernel, match=r"\(ipykernel needs loop>=5, and loop is 4\.0\)"):
        lend_ipykernel(engine, str(starter_image), COMMAND, unfit, own_places, build_environ(index))


def test_without_an_index_the_message_says_how_to_prepare(
    engine: EngineInfo, starter_image: Path, own_places: Places, probe: ImageProbe, tmp_path: Path
) -> None:
    with pytest.raises(ImageLacksIpykernel) as caught:
        lend_ipykernel(engine, str(starter_image), COMMAND, probe, own_places, build_environ(tmp_path / "none"))
    assert "Could not find a version that satisfies the requirement ipykernel" in caught.value.message
    assert "kernel check NAME" in str(caught.value.hint)
    assert "pip install ipykernel" in str(caught.value.hint)
    assert not [path for path in own_places.lent.iterdir() if path.is_dir()]


def test_a_lent_ipykernel_that_cannot_be_imported_is_no_kernel(
    engine: EngineInfo, starter_image: Path, own_places: Places, probe: ImageProbe, index: Path
) -> None:
    (index / "ipykernel-7.0-py3-none-any.whl").unlink()
    (index / "ipykernel-6.0-py3-none-any.whl").unlink()
    add_wheel(index, "ipykernel", "7.0", modules=("ipykernel/__init__.py",))
    with pytest.raises(ImageLacksIpykernel, match=r"cannot be imported in it: .*ipykernel\.kernelapp"):
        lend_ipykernel(engine, str(starter_image), COMMAND, probe, own_places, build_environ(index))


@pytest.mark.parametrize(
    ("version", "abi", "expected"),
    [
        ("3.9.0", "cp39", True),
        ("3.14.1", "cp314t", True),
        ("3.8.18", "cp38", False),
        ("3.11.0", None, False),
        # An image may say anything of itself.
        ("3.11.0", "../../cp311", False),
        ("3.11.0 --index-url=http://x", "cp311", False),
    ],
)
def test_only_cpython_3_9_and_newer_is_lent_to(version: str, abi: str | None, expected: bool) -> None:
    found = ImageProbe("python", python_version=version, abi=abi, libc="glibc2.31", machine="x86_64")
    assert can_lend(found) is expected
