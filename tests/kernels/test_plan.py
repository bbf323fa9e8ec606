"""From wish to plan: a pure function, so tables of wishes and what comes of them."""

from __future__ import annotations

import itertools
import posixpath
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jupyter_apptainer.engine.host.gpu import NO_NVIDIA, Nvidia
from jupyter_apptainer.engine.locate import EngineInfo, run_flags
from jupyter_apptainer.engine.options import Bind
from jupyter_apptainer.errors import SpecError
from jupyter_apptainer.images.probe import LENT_DIR, ImageProbe
from jupyter_apptainer.kernels.forking import find_obstacle
from jupyter_apptainer.kernels.plan import LaunchContext, LaunchPlan, PlannedFile, build_launch_plan
from jupyter_apptainer.kernels.resources import Host
from jupyter_apptainer.kernels.spec import ContainerSpec, parse_container_spec

ENGINE = EngineInfo("/e/apptainer", "apptainer", (1, 4, 5), "1.4.5", "PATH", False, "/e/apptainer.conf", "/e/libexec")
CONTEXT = LaunchContext(
    engine=ENGINE,
    kernel_id="1f3c",
    instance_name="jpa-1f3c-aa",
    cwd="/data/project",
    home="/home/u",
    engine_home="/home/u",
    private_dir="/run/user/1000/jpa/aa",
    scratch_dir="/var/tmp/jpa-1000/aa",
    ipython_dir="/home/u/.local/share/jupyter-apptainer/ipython",
    matplotlib_dir="/home/u/.cache/jupyter-apptainer/matplotlib",
    environ={"LANG": "C.UTF-8", "PYTHONPATH": "/host", "HF_TOKEN": "s3"},
)


def plan(config: dict[str, Any] | None = None, **context: Any) -> LaunchPlan:
    """Without a bridge, which has tests of its own."""
    wish = {"image": "/i.sif", "bridge": "off", **(config or {})}
    return build_launch_plan(parse_container_spec(wish), replace(CONTEXT, **context))


def destinations(found: LaunchPlan) -> list[str]:
    return [bind.destination for bind in found.binds]


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


# --- the command

SHIM = "/run/user/1000/jpa/aa/shim.py"
SESSION = ("/bin/sh", "/run/user/1000/jpa/aa/session.sh")
FILE = "/run/user/1000/jpa/aa/connection.json"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        pytest.param(
            ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            ("python", SHIM, "-m", "ipykernel_launcher", "-f", FILE),
            id="module",
        ),
        pytest.param(
            ["/opt/venv/bin/python3.11", "-m", "ipykernel", "-f={connection_file}"],
            ("/opt/venv/bin/python3.11", SHIM, "-m", "ipykernel", f"-f={FILE}"),
            id="path",
        ),
        pytest.param(
            ["python", "-s", "-E", "-m", "k", "{connection_file}"],
            ("python", "-s", "-E", SHIM, "-m", "k", FILE),
            id="flags",
        ),
        pytest.param(
            ["python", "-X", "dev", "-m", "k", "{connection_file}"],
            ("python", "-X", "dev", SHIM, "-m", "k", FILE),
            id="flag-with-a-value",
        ),
        pytest.param(
            ["python", "-W", "ignore", "-Xfrozen_modules=off", "-Wd", "-m", "k", "{connection_file}"],
            ("python", "-W", "ignore", "-Xfrozen_modules=off", "-Wd", SHIM, "-m", "k", FILE),
            id="flags-with-glued-values",
        ),
        pytest.param(
            ["python", "-sX", "dev", "k.py", "{connection_file}"],
            ("python", "-sX", "dev", SHIM, "k.py", FILE),
            id="cluster-with-a-value",
        ),
        pytest.param(
            ["python", "--check-hash-based-pycs", "never", "-m", "k", "{connection_file}"],
            ("python", "--check-hash-based-pycs", "never", SHIM, "-m", "k", FILE),
            id="long-flag",
        ),
        pytest.param(
            ["python", "/k/kernel.py", "-m", "{connection_file}"],
            ("python", SHIM, "/k/kernel.py", "-m", FILE),
            id="script",
        ),
        pytest.param(["pypy3", "-m", "k", "{connection_file}"], ("pypy3", SHIM, "-m", "k", FILE), id="another-python"),
        pytest.param(
            ["python", "-c", "run('{connection_file}')"],
            (*SESSION, "python", "-c", f"run('{FILE}')"),
            id="code",
        ),
        pytest.param(
            ["python", "-Im", "ipykernel_launcher", "-f", "{connection_file}"],
            (*SESSION, "python", "-Im", "ipykernel_launcher", "-f", FILE),
            id="glued-module",
        ),
        pytest.param(["python", "-", "{connection_file}"], (*SESSION, "python", "-", FILE), id="standard-input"),
        pytest.param(
            ["R", "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"],
            (*SESSION, "R", "--slave", "-e", "IRkernel::main()", "--args", FILE),
            id="another-language",
        ),
        pytest.param(
            ["/bin/sh", "-c", "exec k {connection_file} {connection_file}"],
            (*SESSION, "/bin/sh", "-c", f"exec k {FILE} {FILE}"),
            id="twice-in-one-word",
        ),
    ],
)
def test_the_kernels_command(command: list[str], expected: tuple[str, ...]) -> None:
    found = plan({"command": command})
    assert found.kernel_command == expected
    assert found.kernel_argv[-len(expected) :] == expected


def test_what_is_lent_is_bound_read_only_and_named_to_the_shim() -> None:
    found = plan(lent="/cache/lent/cp311")
    assert Bind("/cache/lent/cp311", LENT_DIR, "ro") in found.binds
    assert found.kernel_command == ("python", SHIM, "--lent", LENT_DIR, "-m", "ipykernel_launcher", "-f", FILE)
    assert LENT_DIR not in destinations(plan())


def test_further_arguments_come_last() -> None:
    found = plan(extra_arguments=("--Session.key=x",))
    assert found.kernel_command[-1] == "--Session.key=x"


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


# --- kernels that are forked


def test_the_fork_server_is_the_main_process_of_the_instance() -> None:
    found = plan({"preload": ["numpy"]}, fork_obstacle="", bundle="/cache/image.modules")
    server = found.fork_server
    assert server is not None
    assert found.instance_argv[-len(server.command) :] == server.command
    assert "type=bind,source=/run/user/1000/jpa/aa/start.sh,destination=/.singularity.d/startscript,ro" in (
        found.instance_argv
    )
    assert server.command[:3] == ("/run/user/1000/jpa/aa/fork.log", "python", "/run/user/1000/jpa/aa/fork_server.py")
    # What runs by hand, and whatever goes wrong with the server, joins with the same words.
    assert server.argv == found.kernel_command[found.kernel_command.index(SHIM) + 1 :]
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("config", "context", "reason"),
    [
        pytest.param({}, {"fork_obstacle": "the machine is full"}, "the machine is full", id="obstacle"),
        pytest.param({"command": ["python", "kernel.py", "{connection_file}"]}, {}, "ipykernel_launcher", id="script"),
        pytest.param({"command": ["ark", "{connection_file}"]}, {}, "ipykernel_launcher", id="no Python"),
    ],
)
def test_a_kernel_that_is_not_forked_says_why_nothing_is_preloaded(
    config: dict[str, Any], context: dict[str, Any], reason: str
) -> None:
    found = plan({"preload": ["numpy"], **config}, **{"fork_obstacle": "", **context})
    assert found.fork_server is None
    assert found.instance_argv[-2:] == ("/i.sif", "jpa-1f3c-aa")
    (warning,) = found.warnings
    assert reason in warning
    assert plan(config, **context).warnings == ()


@pytest.mark.parametrize(
    ("config", "is_layered"),
    [
        pytest.param({}, False, id="the image alone"),
        pytest.param({"overlays": ["/o.img"]}, True, id="overlay"),
        pytest.param({"binds": ["/data"]}, True, id="bind"),
        pytest.param({"extra_flags": ["--writable"]}, True, id="flag"),
    ],
)
def test_the_fork_server_knows_whether_files_of_the_image_may_be_hidden(
    config: dict[str, Any], is_layered: bool
) -> None:
    server = plan(config, fork_obstacle="").fork_server
    assert server is not None
    assert f'"is_layered": {str(is_layered).lower()}' in server.command[4]


def test_kernels_that_share_an_instance_must_agree_on_their_variables() -> None:
    shared = plan({"instance": "shared:lab", "env": {"A": "secret"}}, fork_obstacle="").fork_server
    alone = plan({"env": {"A": "secret"}}, fork_obstacle="").fork_server
    assert shared is not None
    assert alone is not None
    assert '"A"' in shared.command[4]
    assert '"names": null' in alone.command[4]
    assert "secret" not in repr((shared.command, alone.command))


class TestForkObstacle:
    PROBE = ImageProbe(
        "/python", implementation="CPython", python_version="3.11.2", ipykernel="7.4.0", is_start_free=True
    )

    def find(self, config: dict[str, Any] | None = None, probe: ImageProbe | None = PROBE, **machine: bool) -> str:
        spec = parse_container_spec({"image": "/i.sif", **(config or {})})
        return find_obstacle(spec, probe, **{"is_wanted": True, "has_memory": True, **machine})

    def test_none(self) -> None:
        assert self.find() == ""
        assert self.find({"resources": {"cpus": 2}}) == ""

    @pytest.mark.parametrize("limit", [{"memory": "4G"}, {"pids": 100}], ids=str)
    def test_limits(self, limit: dict[str, object]) -> None:
        assert "limits" in self.find({"resources": limit})

    @pytest.mark.parametrize(
        "change",
        [
            {"is_start_free": False},
            {"python_version": "3.7.16"},
            {"implementation": "PyPy"},
            {"ipykernel": None},
            {"problem": "ImportError: broken"},
        ],
        ids=str,
    )
    def test_images(self, change: dict[str, Any]) -> None:
        assert "image" in self.find(probe=replace(self.PROBE, **change))
        assert "image" in self.find(probe=None)

    def test_machine_and_setting(self) -> None:
        assert "memory" in self.find(has_memory=False)
        assert "fork_kernels" in self.find(is_wanted=False)
