"""The command that a plan runs, and kernels that are forked."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from jupyter_apptainer.engine.options import Bind
from jupyter_apptainer.images.probe import LENT_DIR, ImageProbe
from jupyter_apptainer.kernels.forking import ForkLimits, find_obstacle
from jupyter_apptainer.kernels.spec import parse_container_spec
from tests.kernels.plans import destinations, plan

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


# --- kernels that are forked


def test_the_fork_server_is_the_main_process_of_the_instance() -> None:
    found = plan({"preload": ["numpy"]}, fork_obstacle="", bundle="/cache/image.modules")
    server = found.fork_server
    assert server is not None
    assert found.instance_argv[-len(server.command) :] == server.command
    assert "type=bind,source=/run/user/1000/jpa/aa/start.sh,destination=/.singularity.d/startscript,ro" in (
        found.instance_argv
    )
    assert server.command[:3] == ("/run/user/1000/jpa/aa/fork.log", "python", "/run/user/1000/jpa/aa/fork_begin.py")
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
    ("config", "changed", "layers"),
    [
        pytest.param({}, None, "-", id="the image alone"),
        pytest.param({"overlays": ["/o.img"]}, None, "?", id="overlay"),
        pytest.param({"overlays": ["/o.img"]}, (), "", id="overlay with nothing in it"),
        pytest.param({"overlays": ["/o.img"]}, ("/a", "/b"), "/a:/b", id="overlay with packages"),
        pytest.param({"overlays": ["/o.img"]}, ("/a:b",), "?", id="colon"),
        pytest.param({"binds": ["/data"]}, None, "?", id="bind"),
        pytest.param({"extra_flags": ["--writable"]}, None, "?", id="flag"),
    ],
)
def test_the_fork_server_knows_whether_files_of_the_image_may_be_hidden(
    config: dict[str, Any], changed: tuple[str, ...] | None, layers: str
) -> None:
    server = plan(config, fork_obstacle="", changed=changed, bundle="/cache/image.modules").fork_server
    assert server is not None
    assert server.command[3:5] == ("/run/user/1000/jpa/aa/modules", layers)


def test_kernels_that_share_an_instance_must_agree_on_their_variables() -> None:
    shared = plan({"instance": "shared:lab", "env": {"A": "secret"}}, fork_obstacle="").fork_server
    alone = plan({"env": {"A": "secret"}}, fork_obstacle="").fork_server
    assert shared is not None
    assert alone is not None
    assert '"A"' in shared.command[6]
    assert '"names": null' in alone.command[6]
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


LAUNCH = ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]


@pytest.mark.parametrize(
    ("config", "context", "expected"),
    [
        pytest.param({}, {}, None, id="a single kernel has none for its restart"),
        pytest.param({}, {"is_ahead": True}, (1, 0), id="a spare container has one for its start"),
        pytest.param({"preload": ["json"]}, {}, (0, 2), id="where something is preloaded"),
        pytest.param({"instance": "shared:lab"}, {}, (0, 2), id="in a shared instance"),
        pytest.param({"preload": ["json"], "command": [*LAUNCH, "--pylab"]}, {}, None, id="not with other options"),
        pytest.param({"preload": ["json"]}, {"fork_limits": ForkLimits()}, None, id="where nobody wants any"),
    ],
)
def test_how_many_kernels_are_ready(
    config: dict[str, Any], context: dict[str, Any], expected: tuple[int, int] | None
) -> None:
    server = plan(config, **{"fork_obstacle": "", "fork_limits": ForkLimits(spare_kernels=2), **context}).fork_server
    assert server is not None
    (settings,) = [json.loads(word) for word in server.command if word.startswith("{")]
    spares = settings["spares"]
    assert (spares and (spares["before"], spares["after"])) == expected
