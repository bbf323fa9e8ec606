"""Paths of the container as the host has them."""

from __future__ import annotations

import pwd
from pathlib import Path
from types import SimpleNamespace

import pytest

from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.kernels.paths import map_to_host
from jupyter_apptainer.kernels.plan import LaunchContext, LaunchPlan, build_launch_plan
from jupyter_apptainer.kernels.spec import parse_container_spec

ENGINE = EngineInfo("/e/apptainer", "apptainer", (1, 4, 5), "1.4.5", "PATH", False, "/e/apptainer.conf", "/e/libexec")


class Host:
    """Folders of a host, and plans for kernels there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in (
            "home/u",
            "work",
            "data",
            "data/deep",
            "other",
            "scratch/tmp",
            "scratch/var-tmp",
            "scratch/home",
            "run",
        ):
            (root / name).mkdir(parents=True, exist_ok=True)
            (root / name / "file").write_text(name)

    def plan(self, **config: object) -> LaunchPlan:
        context = LaunchContext(
            engine=ENGINE,
            kernel_id="k",
            instance_name="jpa-k",
            cwd=str(self.root / "work"),
            home="/home/u",
            engine_home="/home/u",
            private_dir=str(self.root / "run"),
            scratch_dir=str(self.root / "scratch"),
            ipython_dir="/home/u/.ipython",
            matplotlib_dir="/home/u/.mpl",
            environ={},
        )
        return build_launch_plan(parse_container_spec({"image": "/i.sif", **config}), context)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("file", "work/file", id="relative"),
        pytest.param("./x/../file", "work/file", id="relative-with-dots"),
        pytest.param("{root}/work/file", "work/file", id="the-notebooks-folder"),
        pytest.param("{root}/work", "work", id="the-folder-itself"),
        pytest.param("/tmp/file", "scratch/tmp/file", id="private-tmp"),
        pytest.param("/var/tmp/file", "scratch/var-tmp/file", id="private-var-tmp"),
        pytest.param("/in/file", "data/file", id="bind"),
        pytest.param("/in/../in/deep/file", "data/deep/file", id="bind-with-dots"),
        pytest.param("/in/deep/inner/file", "other/file", id="a-later-bind-below-another"),
        pytest.param("/in", "data", id="bind-itself"),
        pytest.param("/in/missing", None, id="not-there"),
        pytest.param("/input/file", None, id="only-alike"),
        pytest.param("/usr/bin/env", None, id="of-the-image"),
        pytest.param("{root}/other/file", None, id="not-bound-at-its-own-path"),
    ],
)
def test_paths_by_the_table_of_binds(host: Host, path: str, expected: str | None) -> None:
    plan = host.plan(binds=[f"{host.root}/data:/in", f"{host.root}/other:/in/deep/inner"])
    found = map_to_host(path.format(root=host.root), plan)
    assert found == (None if expected is None else str(host.root / expected))


def test_a_later_bind_hides_an_earlier_one_at_the_same_place(host: Host) -> None:
    plan = host.plan(binds=[f"{host.root}/data:/in", f"{host.root}/other:/in"])
    assert map_to_host("/in/file", plan) == str(host.root / "other/file")


def test_a_later_bind_hides_an_earlier_one_below_it(host: Host) -> None:
    plan = host.plan(binds=[f"{host.root}/other:/in/deep", f"{host.root}/data:/in"])
    assert map_to_host("/in/deep/file", plan) == str(host.root / "data/deep/file")


def test_the_hosts_home_is_at_its_own_path(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    # A folder that every host has, and the private /tmp does not hide.
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_dir="/etc"))
    assert map_to_host("/etc/passwd", host.plan()) == "/etc/passwd"
    assert map_to_host("/etc/missing", host.plan()) is None


@pytest.mark.parametrize(
    ("home", "expected"), [("none", "scratch/home/file"), ("{root}/other", "other/file")], ids=["none", "another"]
)
def test_another_home(host: Host, home: str, expected: str) -> None:
    plan = host.plan(home=home.format(root=host.root))
    assert map_to_host("/home/u/file", plan) == str(host.root / expected)
