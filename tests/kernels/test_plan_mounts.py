"""What a plan mounts: binds, the home folder, overlays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jupyter_apptainer.engine.options import Bind
from jupyter_apptainer.errors import SpecError
from jupyter_apptainer.kernels.plan import PlannedFile, build_launch_plan
from jupyter_apptainer.kernels.spec import parse_container_spec
from tests.kernels.plans import CONTEXT, destinations, plan

# --- binds


def test_wishes_come_last_and_in_their_order() -> None:
    found = plan({"binds": ["/b:/in:ro", "/a"]})
    assert destinations(found) == ["/tmp", "/var/tmp", CONTEXT.private_dir, "/data/project", "/in", "/a"]
    assert found.binds[-2:] == (Bind("/b", "/in", "ro"), Bind("/a", "/a", "rw"))


@pytest.mark.parametrize(
    ("cwd", "binds", "expected"),
    [
        pytest.param("/data/p", [], True, id="plain"),
        pytest.param("/", [], False, id="root-is-the-containers"),
        pytest.param("/data/p", ["/elsewhere:/data/p:ro"], False, id="a-wish-has-it"),
        pytest.param("/data/p", ["/data/p:/in"], True, id="a-wish-has-it-elsewhere"),
        pytest.param("/data/p", ["/data"], True, id="a-wish-has-its-parent"),
    ],
)
def test_the_notebooks_folder_is_at_its_own_path(cwd: str, binds: list[str], expected: bool) -> None:
    found = plan({"binds": binds}, cwd=cwd)
    assert (Bind(cwd, cwd) in found.binds) is expected


@pytest.mark.parametrize(
    ("destination", "mountpoint"),
    [
        pytest.param("/tmp/x", "/var/tmp/jpa-1000/aa/tmp/x", id="tmp"),
        pytest.param("/tmp/x/y z", "/var/tmp/jpa-1000/aa/tmp/x/y z", id="deep"),
        pytest.param("/var/tmp/x", "/var/tmp/jpa-1000/aa/var-tmp/x", id="var-tmp"),
        pytest.param("/tmpfiles", None, id="only-alike"),
        pytest.param("/data/tmp/x", None, id="another-tmp"),
        pytest.param("/tmp", None, id="tmp-itself"),
    ],
)
def test_what_is_mounted_below_tmp_gets_a_mountpoint(destination: str, mountpoint: str | None) -> None:
    found = plan({"binds": [f"/src:{destination}"]})
    made = [file for file in found.files if file.kind == "mountpoint"]
    expected = [] if mountpoint is None else [(mountpoint, "/src")]
    assert [(file.path, file.target) for file in made] == expected


def test_a_notebook_in_tmp_and_a_private_folder_there() -> None:
    found = plan(cwd="/tmp/nb", private_dir="/tmp/jpa-0/aa")
    made = {file.path: file.target for file in found.files if file.kind == "mountpoint"}
    assert made == {
        "/var/tmp/jpa-1000/aa/tmp/nb": "/tmp/nb",
        "/var/tmp/jpa-1000/aa/tmp/jpa-0/aa": "/tmp/jpa-0/aa",
    }


# --- home and isolation


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param({}, None, id="host"),
        pytest.param({"home": "none"}, "/var/tmp/jpa-1000/aa/home:/home/u", id="none"),
        pytest.param({"home": "/other"}, "/other:/home/u", id="another"),
        pytest.param({"home": "/o:dd"}, "/run/user/1000/jpa/aa/home:/home/u", id="odd"),
        pytest.param({"isolation": "contain"}, "/var/tmp/jpa-1000/aa/home:/home/u", id="contain"),
        pytest.param({"isolation": "containall"}, "/var/tmp/jpa-1000/aa/home:/home/u", id="containall"),
        pytest.param({"isolation": "contain", "home": "/other"}, "/other:/home/u", id="contain-another"),
    ],
)
def test_home(config: dict[str, Any], expected: str | None) -> None:
    found = plan(config)
    assert found.options.home == expected
    is_host = expected is None
    assert ("IPYTHONDIR" in found.container_env) is is_host
    assert (
        PlannedFile("folder", "/var/tmp/jpa-1000/aa/home", "an empty home folder that goes with the kernel")
        in found.files
    ) is (expected == "/var/tmp/jpa-1000/aa/home:/home/u")


def test_a_home_below_tmp_is_not_hidden() -> None:
    assert Bind("/tmp/me", "/tmp/me") in plan(home="/tmp/me").binds
    assert Bind("/tmp/me", "/tmp/me") not in plan({"home": "none"}, home="/tmp/me").binds
    assert Bind("/home/u", "/home/u") not in plan().binds, "the engine mounts it"


@pytest.mark.parametrize(("folder", "expected"), [("/home/u/x", False), ("/data/x", True), ("/home/us/x", True)])
def test_shared_folders_outside_the_home_are_bound(folder: str, expected: bool) -> None:
    found = plan(ipython_dir=folder)
    assert (Bind(folder, folder) in found.binds) is expected
    assert any(file.path == folder and file.kind == "folder" for file in found.files)


@pytest.mark.parametrize("isolation", ["contain", "containall"])
def test_isolation_is_a_flag(isolation: str) -> None:
    found = plan({"isolation": isolation})
    assert f"--{isolation}" in found.instance_argv
    assert f"--{isolation}" not in found.kernel_argv, "the engine ignores it for an instance"


# --- overlays


@pytest.mark.parametrize(
    ("overlays", "flags", "is_tmpfs"),
    [
        pytest.param([], (), False, id="none"),
        pytest.param(["tmpfs"], (), True, id="tmpfs"),
        pytest.param(["/o.img"], ("/o.img",), False, id="writable"),
        pytest.param(["/o.img:ro"], ("/o.img:ro",), True, id="read-only-alone"),
        pytest.param(["/o.img:ro", "/p.img"], ("/o.img:ro", "/p.img"), False, id="read-only-below-writable"),
        pytest.param(["/o.img:ro", "tmpfs"], ("/o.img:ro",), True, id="read-only-and-tmpfs"),
        pytest.param(["/o.img:ro", "/p.img:ro"], ("/o.img:ro", "/p.img:ro"), True, id="two-read-only"),
        pytest.param(["/dir:ro"], ("/dir:ro",), True, id="folder"),
    ],
)
def test_overlays(overlays: list[str], flags: tuple[str, ...], is_tmpfs: bool) -> None:
    found = plan({"overlays": overlays})
    assert found.options.overlays == flags
    assert found.options.writable_tmpfs is is_tmpfs


@pytest.mark.parametrize(
    ("path", "link"),
    [
        pytest.param("/a,b/layer.img", "overlay0.img", id="comma"),
        pytest.param(r"/a\:b.img", "overlay0.img", id="colon"),
        pytest.param('/a"b.img', "overlay0.img", id="quote"),
        pytest.param("/dir.a,b", "overlay0", id="odd-ending"),
        pytest.param("/a,b", "overlay0", id="no-ending"),
    ],
)
@pytest.mark.parametrize("ending", ["", ":ro"])
def test_an_overlay_with_an_odd_path_gets_a_link(path: str, link: str, ending: str) -> None:
    found = plan({"overlays": [path + ending]})
    expected = f"{CONTEXT.private_dir}/{link}"
    assert found.options.overlays == (expected + ending,)
    (made,) = [file for file in found.files if file.kind == "link"]
    assert (made.path, made.target) == (expected, path.replace("\\", ""))


def test_links_of_several_odd_overlays_are_told_apart() -> None:
    found = plan({"overlays": ["/a,1.img:ro", "/plain.img:ro", "/a,2.img"]})
    links = [file.path for file in found.files if file.kind == "link"]
    assert len(set(links)) == 2


def test_two_writable_layers_are_refused() -> None:
    with pytest.raises(SpecError, match="one"):
        plan({"overlays": ["/a.img", "tmpfs"]})
    spec = parse_container_spec({"image": "/i.sif", "overlays": ["/a.img"]})
    twice = replace(spec, overlays=spec.overlays * 2)
    with pytest.raises(SpecError, match=r"/a\.img, /a\.img"):
        build_launch_plan(twice, CONTEXT)
