"""From wish to plan: a pure function, so tables of wishes and what comes of them."""

from __future__ import annotations

import itertools
import posixpath
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jupyter_apptainer.engine.host.gpu import NO_NVIDIA, Nvidia
from jupyter_apptainer.engine.locate import run_flags
from jupyter_apptainer.kernels.plan import build_launch_plan
from jupyter_apptainer.kernels.resources import Host
from jupyter_apptainer.kernels.spec import ContainerSpec, parse_container_spec
from tests.kernels.plans import CONTEXT, ENGINE, destinations, plan

# --- the whole

WISHES: dict[str, list[Any]] = {
    "nv": ["auto", True, False],
    "binds": [[], ["/a", "/b:/tmp/b:ro"]],
    "overlays": [[], ["tmpfs"], ["/o.img"], ["/o.img:ro"], ["/o,dd.img:ro", "/p.img"]],
    "home": ["host", "none", "/other"],
    "isolation": ["default", "contain", "containall"],
    "network": ["host", "none"],
}
ALL_WISHES = [dict(zip(WISHES, values, strict=True)) for values in itertools.product(*WISHES.values())]


def test_the_same_wish_gives_the_same_plan_and_touches_nothing(tmp_path: Path) -> None:
    folders: dict[str, Any] = {
        name: str(tmp_path / name) for name in ("private_dir", "scratch_dir", "ipython_dir", "matplotlib_dir")
    }
    for wish in ALL_WISHES:
        spec = parse_container_spec({"image": "/i.sif", **wish})
        context = replace(CONTEXT, **folders)
        before = repr(spec), repr(context)
        assert build_launch_plan(spec, context) == build_launch_plan(spec, context)
        assert (repr(spec), repr(context)) == before
    assert list(tmp_path.iterdir()) == []


def test_what_holds_for_every_plan() -> None:
    for wish in ALL_WISHES:
        for cwd, home in (("/data/project", "/home/u"), ("/tmp/nb", "/tmp/home"), ("/", "/root")):
            found = plan(wish, cwd=cwd, home=home)
            names = [entry.name for entry in found.env]
            assert len(names) == len(set(names))
            assert all(entry.why for entry in found.env)
            assert all(bind.why for bind in found.binds)
            assert all(file.why for file in found.files)
            assert found.instance_argv[-2:] == ("/i.sif", "jpa-1f3c-aa")
            assert "instance://jpa-1f3c-aa" in found.kernel_argv
            # Nothing of the server's environment but what the allow-list has.
            assert not {"PYTHONPATH", "HF_TOKEN", "HOME"} & set(names)
            assert "s3" not in repr((found.instance_argv, found.kernel_argv))
            # A folder hides what is mounted below it, so it has to come first.
            order = destinations(found)
            assert order[:2] == ["/tmp", "/var/tmp"]
            # Each thing that is made lies in a folder that goes with the kernel, or is shared by intention.
            shared = (CONTEXT.ipython_dir, CONTEXT.matplotlib_dir)
            own = (CONTEXT.private_dir + "/", CONTEXT.scratch_dir + "/")
            assert all(file.path.startswith(own) or file.path in shared for file in found.files)
            # Whatever lies below /tmp has its mountpoint.
            made = {file.path for file in found.files if file.kind == "mountpoint"}
            for bind in found.binds:
                if bind.destination.startswith("/tmp/"):
                    assert posixpath.join(CONTEXT.scratch_dir, bind.destination.lstrip("/")) in made


def test_the_plan_says_whose_it_is() -> None:
    found = plan()
    assert (found.kernel_id, found.instance_name, found.image) == ("1f3c", "jpa-1f3c-aa", "/i.sif")
    assert found.connection_file == "/run/user/1000/jpa/aa/connection.json"
    assert found.cwd == "/data/project"
    assert found.warnings == ()


def test_the_simplest_command_lines() -> None:
    found = plan()
    host = run_flags(ENGINE)
    assert found.instance_argv == (
        *("/e/apptainer", "instance", "start", *host, "--no-eval", "--cleanenv"),
        *("--mount", "type=bind,source=/var/tmp/jpa-1000/aa/tmp,destination=/tmp"),
        *("--mount", "type=bind,source=/var/tmp/jpa-1000/aa/var-tmp,destination=/var/tmp"),
        *("--mount", "type=bind,source=/run/user/1000/jpa/aa,destination=/run/user/1000/jpa/aa"),
        *("--mount", "type=bind,source=/data/project,destination=/data/project"),
        *("/i.sif", "jpa-1f3c-aa"),
    )
    assert found.kernel_argv == (
        *("/e/apptainer", "-q", "exec", *host, "--no-eval", "--cleanenv", "--pwd", "/data/project"),
        *("instance://jpa-1f3c-aa", "python", "/run/user/1000/jpa/aa/shim.py", "-m", "ipykernel_launcher"),
        *("-f", "/run/user/1000/jpa/aa/connection.json"),
    )


# --- GPUs, network, further flags


@pytest.mark.parametrize(
    ("nv", "has_device", "expected", "warns"),
    [
        ("auto", True, True, False),
        ("auto", False, False, False),
        (True, True, True, False),
        (True, False, True, True),
        (False, True, False, False),
        (False, False, False, False),
    ],
)
def test_nv(nv: object, has_device: bool, expected: bool, warns: bool) -> None:
    found = plan({"nv": nv}, nvidia=Nvidia(("nvidia0",), "550.54", ("libcuda.so.1",)) if has_device else NO_NVIDIA)
    assert ("--nv" in found.instance_argv) is expected
    assert bool(found.warnings) is warns


def test_limits_are_flags_only_where_the_engine_can_have_a_cgroup() -> None:
    wish = {"resources": {"memory": "2T", "cpus": 1.5, "pids": 512}}
    processors = tuple(range(8))
    found = plan(wish, host=Host(processors, cgroup_obstacle=""))
    words = " ".join(found.instance_argv)
    assert "--memory 2199023255552 --cpus 1.5 --pids-limit 512" in words
    assert not any(word in " ".join(found.kernel_argv) for word in ("--memory", "--cpus", "--pids-limit"))
    found = plan(wish, host=Host(processors, cgroup_obstacle="no systemd"))
    assert not {"--memory", "--cpus", "--pids-limit"} & set(found.instance_argv)
    assert len(found.resources.processors) == 2
    assert found.resources.notes[0] == "no cgroup for this kernel: no systemd"


def test_rocm_and_network() -> None:
    found = plan({"rocm": True, "network": "none"})
    assert "--rocm" in found.instance_argv
    assert found.instance_argv[found.instance_argv.index("--net") + 1 :][:2] == ("--network", "none")


def test_further_flags_come_after_ours_and_before_the_image() -> None:
    found = plan({"extra_flags": ["--dns", "1.1.1.1"]})
    assert found.instance_argv[-4:] == ("--dns", "1.1.1.1", "/i.sif", "jpa-1f3c-aa")
    assert "--dns" not in found.kernel_argv


# --- variables


def test_variables_of_ours_and_their_precedence() -> None:
    found = plan({"env": {"PYTHONNOUSERSITE": "", "A": "spec"}}, kernelspec_env={"A": "kernelspec", "IPYTHONDIR": "/i"})
    assert found.container_env == {
        "LANG": "C.UTF-8",
        "JPY_PARENT_PID": "0",
        "PYTHONNOUSERSITE": "",
        "IPYTHONDIR": "/i",
        "MPLCONFIGDIR": CONTEXT.matplotlib_dir,
        "A": "spec",
    }


def test_values_are_in_no_command_line() -> None:
    found = plan({"env": {"MY_SECRET": "hidden-value"}})
    assert not any("hidden-value" in word for word in (*found.instance_argv, *found.kernel_argv))


def test_a_plan_is_for_one_engine() -> None:
    old = replace(ENGINE, flavour="singularity", version=(3, 8, 7))
    assert "--no-eval" not in plan(engine=old).instance_argv
    assert isinstance(parse_container_spec({"image": "/i.sif"}), ContainerSpec)


def test_a_home_that_passwd_does_not_know_is_mounted_by_name() -> None:
    assert plan(home="/scratch/u").options.home == "/scratch/u:/scratch/u"
    assert plan().options.home is None


@pytest.mark.parametrize(
    ("overlays", "words"),
    [
        pytest.param(["/o.img"], ("--overlay", "-m"), id="written to"),
        pytest.param(["/o.img:ro"], ("-m",), id="read-only"),
        pytest.param(["tmpfs"], ("-m",), id="in memory"),
    ],
)
def test_a_kernel_that_may_install_into_an_overlay_file_looks_twice_for_modules(
    overlays: list[str], words: tuple[str, ...]
) -> None:
    found = plan({"overlays": overlays}).kernel_command
    assert found[2 : 2 + len(words)] == words


def test_an_overlay_for_fakeroot_keeps_the_home_folder_where_it_is() -> None:
    found = plan({"overlays": ["/o.img"]}, fakeroot=True)
    assert "--fakeroot" in found.instance_argv
    home = found.instance_argv[found.instance_argv.index("--home") + 1]
    assert home.split(":")[0] == home.split(":")[1]
    twice = plan({"overlays": ["/o.img"], "extra_flags": ["--fakeroot"]}, fakeroot=True)
    assert twice.instance_argv.count("--fakeroot") == 1
