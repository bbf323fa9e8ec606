"""What runs on the host for a line of a cell, and what is refused: tables of lines."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_apptainer.bridge.allowed import ALLOWED
from jupyter_apptainer.bridge.model import BridgeSetup
from jupyter_apptainer.bridge.order import Order, build_order, clean_environment
from jupyter_apptainer.bridge.request import Request
from jupyter_apptainer.errors import BridgeError, PolicyError, SpecError

# The same for every user.
pytestmark = pytest.mark.user

ENVIRON = {"PATH": "/bin", "HUB_API_TOKEN": "s3", "APPTAINER_DOCKER_PASSWORD": "p", "MY_SECRET": "s3"}


def order(line: str, setup: BridgeSetup, **fields: object) -> Order:
    request = Request(ask="run", words=tuple(shlex.split(line)), cwd=setup.paths.cwd)
    return build_order(replace(request, **fields), setup)  # type: ignore[arg-type]  # by name


def words(line: str, setup: BridgeSetup, **fields: object) -> list[str]:
    return list(order(line, setup, **fields).words)


# --- read


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("version", "version"),
        ("--version", "--version"),
        ("-q version", "-q version"),
        ("help build", "help build"),
        ("instance start --help", "help instance start"),
        ("ps", "instance list"),
        ("instance list 'jpa-*' --json", "instance list 'jpa-*' --json"),
        ("instance stats -j --no-stream jpa-1", "instance stats -j --no-stream jpa-1"),
        ("cache list -v", "cache list -v"),
        ("images", "image list"),
        ("kernels --json", "kernel ps --json"),
        ("kernel list", "kernel list"),
        ("engine info", "engine info"),
        ("gpu --all", "gpu --all"),
        ("tasks", "tasks"),
        ("tasks show 1f3c9a02 --json", "tasks show 1f3c9a02 --json"),
        ("inspect instance://this", "image inspect {image}"),
        ("image inspect this --json", "image inspect {image} --json"),
    ],
)
def test_what_only_reads_runs_where_nothing_of_the_container_is(line: str, expected: str, setup: BridgeSetup) -> None:
    setup = replace(setup, level="read")
    assert words(line, setup) == shlex.split(expected.format(image=setup.instance.image))
    assert order(line, setup).cwd == "/"


REFUSED = [
    # Programs of images, and what writes.
    "exec i.sif true",
    "run i.sif",
    "test i.sif",
    "shell i.sif",
    "instance start i.sif x",
    "instance run i.sif x",
    "instance stop --all",
    "build o.sif d.def",
    "build --help d.def",
    "pull docker://alpine",
    "push i.sif oras://h/x",
    "overlay create o.img",
    "cache clean --force",
    "key import k.asc",
    "remote add x https://h",
    "registry login -u me oras://h",
    "capability add --user me all",
    "plugin install p.sif",
    "config global --set x y",
    "oci run x",
    "sif dump 1 i.sif",
    "sign i.sif",
    "delete library://x",
    # What reads more than it should, or sends it away.
    "verify --url http://evil i.sif",
    "search --library http://evil x",
    "instance list --logs",
    "instance list --user root",
    "instance list -u root",
    "instance list ../../x",
    "instance list a b",
    "instance stats --user root x",
    "key list --secret",
    "run-help i.sif",
    "sif list i.sif",
    "image recipe i.sif",
    "image list /secret",
    "image build o.sif --def d.def",
    "image clean",
    "image remove -y i.sif",
    "kernel stop x",
    "kernel add x i.sif --bind /:/host",
    "kernel remove -y x",
    "kernel explain x",
    "kernel ps --json --debug",
    "engine install",
    "gc",
    "gpu stop 1",
    "gpu --watch",
    "tasks cancel 1f3c",
    "tasks log 1f3c --follow",
    "tasks show ../../x",
    "doctor",
    "quickstart",
    # Flags before the command, glued, abbreviated, repeated, with values.
    "-c /data/evil.conf version",
    "--config=/data/evil.conf version",
    "--build-config version",
    "-d version",
    "--debug version",
    "version --log-file /home/u/.bashrc",
    "instance list --json=/etc/passwd",
    "instance list -jl",
    "instance list --js",
    "instance list -- --logs",
    "cache list -vT blob",
    "image list --json --",
    "--json image list",
    # Words that try to be something else.
    "instance",
    "help exec -c x",
    "help ../../etc/passwd",
    "help 'exec;id'",
    "help --config x",
    "instance list '$(id)'",
    "instance list $'a\\nb'",
    "inspect --json --deffile i.sif",
    "inspect --app ../../x i.sif",
    "inspect /etc/shadow",
    "inspect ./i.sif",
    "inspect ../../../etc/shadow",
    "inspect /data/evil.sif",
    "image inspect --json -- i.sif",
    "",
]


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_not_on_the_list_is_refused_with_the_reason(line: str, setup: BridgeSetup) -> None:
    with pytest.raises((PolicyError, SpecError)) as caught:
        order(line, replace(setup, level="read"))
    assert caught.value.message.isprintable()
    assert caught.value.hint


def test_a_body_is_refused(setup: BridgeSetup) -> None:
    with pytest.raises(PolicyError, match="text of a cell"):
        order("version", replace(setup, level="read"), stdin="x")


def test_a_link_of_the_container_does_not_lead_to_an_image_elsewhere(setup: BridgeSetup, tmp_path: Path) -> None:
    """/data is the container's to write: what a name there leads to is looked up on the host, and compared."""
    (tmp_path / "other/secret.sif").write_text("x")
    (tmp_path / "data/link.sif").symlink_to(tmp_path / "other/secret.sif")
    with pytest.raises(PolicyError, match="images that"):
        order("inspect /data/link.sif", replace(setup, level="read"))
    (tmp_path / "data/own.sif").symlink_to(setup.instance.image)
    assert words("inspect /data/own.sif", replace(setup, level="read"))[-1] == setup.instance.image


def test_no_flag_of_the_list_takes_a_value() -> None:
    """So that no word of the container's can become a path, a URL, or a name of somebody else."""
    assert not [
        row for row in ALLOWED if any("=" in flag or flag in ("-u", "--user", "-l", "--logs") for flag in row.flags)
    ]


# --- full


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("exec instance://this ls /data", "exec instance://jpa-1 ls /data"),
        ("exec /data/i.sif cat /data/x", "exec {root}/data/i.sif cat /data/x"),
        ("exec --nv /data/i.sif true", "exec --nv {root}/data/i.sif true"),
        ("exec -B /data:/in:ro i.sif ls /data", "exec -B {root}/data:/in:ro i.sif ls /data"),
        ("exec --bind=/data i.sif true", "exec --bind={root}/data i.sif true"),
        ("exec /image-only/i.sif true", "exec /image-only/i.sif true"),
        ("instance start /data/i.sif x", "instance start {root}/data/i.sif x"),
        ("pull /data/new.sif docker://alpine", "pull {root}/data/new.sif docker://alpine"),
        ("image inspect /data/i.sif", "image inspect {root}/data/i.sif"),
        ("kernel add x i.sif --bind /data:/d", "kernel add x i.sif --bind {root}/data:/d"),
    ],
)
def test_paths_of_the_container_become_those_of_the_host(
    line: str, expected: str, setup: BridgeSetup, tmp_path: Path
) -> None:
    filled = expected.format(root=tmp_path)
    assert words(line, setup) == shlex.split(filled)
    assert order(line, setup).cwd == str(tmp_path / "work")
    assert order(line, setup, cwd="/data").cwd == str(tmp_path / "data")


def test_a_folder_of_the_image_is_no_place_to_work_in(setup: BridgeSetup) -> None:
    with pytest.raises(BridgeError, match="in the image"):
        order("exec i.sif true", setup, cwd="/opt")


def test_tokens_of_the_server_stay_with_it() -> None:
    assert clean_environment(ENVIRON) == {"PATH": "/bin", "APPTAINER_DOCKER_PASSWORD": "p"}


def test_the_body_of_a_cell_goes_with_it(setup: BridgeSetup) -> None:
    assert order("build out.sif", setup, stdin="Bootstrap: x") == Order(
        ("build", "out.sif"), "Bootstrap: x", setup.paths.cwd
    )


@pytest.mark.parametrize("line", ["bind data", "restart --nv true"])
def test_a_kernel_changes_its_own_container_under_full_alone(line: str, setup: BridgeSetup) -> None:
    assert order(line, setup).words == tuple(line.split())
    with pytest.raises(PolicyError):
        order(line, replace(setup, level="read"))


@pytest.mark.parametrize(("line", "text"), [("isntance list", "nearest is `instance`"), ("imges", "nearest is `image")])
def test_a_slip_is_named(line: str, text: str, setup: BridgeSetup) -> None:
    with pytest.raises(SpecError, match=text):
        order(line, replace(setup, level="read"))
