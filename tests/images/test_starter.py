"""The starter image, which `jupyter apptainer quickstart` has built from what this host can reach, and how a build goes.

The real one takes more than a minute, and every run of the tests begins with it; here a small one is built in its place.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from jupyter_apptainer.engine.apt import Mirror, find_mirror
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.step import find_program
from jupyter_apptainer.errors import BuildError
from jupyter_apptainer.images import starter
from jupyter_apptainer.images.host_settings import HostSettings
from jupyter_apptainer.images.starter import (
    Source,
    build_starter_image,
    choose_debian_source,
    is_registry_reachable,
    load_definition,
)
from jupyter_apptainer.places import Places
from tests.images.conftest import Ask

# The same for every user.
pytestmark = pytest.mark.user

SMALL_DEFINITION = "Bootstrap: localimage\nFrom: {{ FROM }}\n%post\n    echo '== Nearly done'\n"
CLOSED_PORT = "http://127.0.0.1:9"
LZ4 = 5


class Built:
    """Two builds at once: the image that both returned, and what each told."""

    def __init__(self, engine: EngineInfo, places: Places) -> None:
        self.engine, self.places = engine, places
        self.told: list[list[str]] = [[], []]
        self.images: list[Path] = []
        threads = [threading.Thread(target=self._build, args=(told,), daemon=True) for told in self.told]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _build(self, told: list[str]) -> None:
        self.images.append(build_starter_image(self.engine, self.places, on_progress=told.append))


def make_small(patch: pytest.MonkeyPatch, base: Path) -> None:
    """Have the starter image made of `base`."""
    patch.setattr(starter, "load_definition", lambda: SMALL_DEFINITION)
    patch.setattr(starter, "is_registry_reachable", lambda *_: False)
    patch.setattr(starter, "choose_debian_source", lambda *_: Source("a small image", {"FROM": str(base)}))


@pytest.fixture(scope="module")
def built(engine: EngineInfo, places: Places, small_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The product of one build; other tests of this module look at it."""
    folder = tmp_path_factory.mktemp("starter")
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch, small_image)
        return Built(engine, replace(places, data=folder / "data", cache=folder / "cache", scratch=folder / "scratch"))


@pytest.fixture
def run(starter_image: Path, ask: Ask) -> Callable[..., str]:
    """Run a program in the starter image and return what it prints."""
    return partial(ask, starter_image)


def list_folder(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.exists() else []


def test_two_calls_at_once_build_once(built: Built) -> None:
    assert len(set(built.images)) == 1
    waited = [told for told in built.told if told == ["Waiting for another build of the image to end"]]
    assert len(waited) == 1
    assert sum("Compressing" in told for told in built.told) == 1


def test_next_call_returns_what_is_there(built: Built, small_image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch, small_image)
    before = built.images[0].stat()
    told: list[str] = []
    assert build_starter_image(built.engine, built.places, on_progress=told.append) == built.images[0]
    assert told == []
    assert built.images[0].stat().st_ino == before.st_ino


def test_build_leaves_nothing_but_the_image(built: Built) -> None:
    assert list_folder(built.places.scratch) == []
    assert sorted(path.name for path in built.places.images.iterdir()) == [
        ".starter.lock",
        "starter.json",
        "starter.sif",
    ]


def test_image_has_what_a_first_notebook_needs(run: Callable[..., str]) -> None:
    code = (
        "import sys, json, ipykernel, ipywidgets, matplotlib.pyplot; from numpy import *;"
        "print(json.dumps([sys.version_info[:2], sys.executable, int(ipykernel.__version__.split('.')[0])]))"
    )
    version, executable, ipykernel = json.loads(run("python", "-c", code))
    assert version >= [3, 11]
    assert executable == "/opt/venv/bin/python"
    assert ipykernel >= 6


def test_image_is_compiled(run: Callable[..., str]) -> None:
    code = (
        "import importlib, os\n"
        "for name in ('asyncio.base_events', 'IPython.core.interactiveshell', 'ipykernel.kernelapp', 'numpy._core.numeric'):\n"
        "    assert os.path.exists(importlib.import_module(name).__cached__), name\n"
    )
    run("python", "-c", code)


def test_image_is_compressed_with_lz4(starter_image: Path) -> None:
    data = starter_image.read_bytes()
    start = data.index(b"hsqs")
    assert int.from_bytes(data[start + 20 : start + 22], "little") == LZ4


def test_image_can_install_further_packages(run: Callable[..., str]) -> None:
    assert "pip" in run("python", "-m", "pip", "--version")


def test_nothing_of_the_hosts_network_stays_in_the_image(run: Callable[..., str]) -> None:
    assert (
        run("sh", "-c", "ls -A /mnt; cat /etc/apt/sources.list 2>/dev/null; ls -A /etc/apt/sources.list.d").strip()
        == ""
    )
    assert run("sh", "-c", "ls /etc/pip.conf /opt/venv/pip.conf 2>/dev/null; true").strip() == ""
    metadata = run("sh", "-c", "cat /.singularity.d/labels.json /.singularity.d/Singularity /.singularity.d/env/*")
    assert "mirrorurl" not in metadata
    if find_program("apt-get"):
        assert find_mirror().uri not in metadata


def test_definition_names_no_mirror() -> None:
    assert "://" not in load_definition()


def test_failed_build_says_why_and_keeps_the_old_image(built: Built) -> None:
    before = built.images[0].stat().st_ino
    environ = {**os.environ, "http_proxy": CLOSED_PORT, "https_proxy": CLOSED_PORT, "no_proxy": ""}
    with pytest.raises(BuildError, match="no image registry can be reached") as caught:
        build_starter_image(built.engine, built.places, is_forced=True, environ=environ)
    assert caught.value.log_tail
    assert "starter-build.log" in str(caught.value.hint)
    assert (built.places.cache / "starter-build.log").stat().st_mode & 0o077 == 0
    assert list_folder(built.places.scratch) == []
    assert built.images[0].stat().st_ino == before
    assert not list(built.places.images.glob(".starter.sif*"))


def test_interrupted_build_leaves_nothing(built: Built) -> None:
    data = built.places.data
    env = {
        **os.environ,
        "JUPYTER_APPTAINER_HOME": str(data),
        "TMPDIR": str(built.places.scratch.parent),
        "PATH": f"{Path(built.engine.path).parent}:{os.environ['PATH']}",
    }
    argv = (sys.executable, "-m", "jupyter_apptainer.cli.main", "quickstart", "--rebuild")
    with subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr
        assert any(line.startswith("Building") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    assert process.returncode == 130
    assert list_folder(built.places.scratch.parent / f"jpa-{os.getuid()}") == []
    names = sorted(path.name for path in built.places.images.iterdir())
    assert names == [".starter.lock", "starter.json", "starter.sif"]


def test_registry_that_does_not_answer_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert not is_registry_reachable(HostSettings(None, {}, {"https_proxy": proxy}), deadline_s=0.2)


@pytest.mark.parametrize(
    ("distribution", "suite", "version", "expected", "packages"),
    [
        ("debian", "bookworm", "12", "bookworm", "python3-venv"),
        ("debian", "bullseye", "11", "stable", "python3-venv"),
        ("debian", "sid", "", "sid", "python3-venv"),
        ("ubuntu", "noble", "24.04", "noble", ""),
        ("ubuntu", "jammy", "22.04", "noble", ""),
    ],
)
def test_host_with_an_old_python_takes_a_newer_suite(
    distribution: str, suite: str, version: str, expected: str, packages: str
) -> None:
    source = choose_debian_source(Mirror("http://a/b", suite, distribution), {"VERSION_ID": version})
    assert source.arguments == {
        "BOOTSTRAP": "debootstrap",
        "SUITE": expected,
        "MIRROR": "http://a/b",
        "PACKAGES": packages,
    }
    assert source.apt_source.startswith(f"deb http://a/b {expected} main")
