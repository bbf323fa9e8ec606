"""Command lines of the engine: each builder's words, and binds and lists as the engine has them."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from jupyter_apptainer.engine.command import Completed
from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo, build_flags, run_flags
from jupyter_apptainer.engine.options import (
    Bind,
    ContainerOptions,
    build_bind_flags,
    build_container_flags,
    build_exec,
    build_image_build,
    build_instance_list,
    build_instance_start,
    build_instance_stop,
    parse_instance_list,
)
from jupyter_apptainer.engine.runner import Runner
from jupyter_apptainer.errors import EngineOutputError, SpecError

ENGINE = EngineInfo("/e/apptainer", "apptainer", (1, 4, 5), "1.4.5", "PATH", False, "/e/apptainer.conf", "/e/libexec")
CE = EngineInfo("/e/singularity", "singularity-ce", (4, 3, 0), "4.3.0", "PATH", False, "/e/s.conf", "/e/libexec")
OLD = EngineInfo("/e/singularity", "singularity", (3, 8, 7), "3.8.7", "PATH", True, "/e/s.conf", "/e/libexec")
HOST = run_flags(ENGINE)


# --- binds


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/plain", id="plain"),
        pytest.param("/with space", id="space"),
        pytest.param("/a,b", id="comma"),
        pytest.param("/a:b", id="colon"),
        pytest.param('/say "hi"', id="quotes"),
        pytest.param('/"', id="one-quote"),
        pytest.param('/a","b', id="quote-comma-quote"),
        pytest.param("/ü/日本", id="not-ascii"),
        pytest.param("/a=b", id="equals"),
        pytest.param("/back\\slash", id="backslash"),
        pytest.param("/trailing ", id="trailing-space"),
        pytest.param("/'single'", id="single-quotes"),
        pytest.param("/tab\there", id="tab"),
    ],
)
@pytest.mark.parametrize("mode", ["rw", "ro"])
def test_a_bind_is_one_row_of_csv(path: str, mode: Any) -> None:
    flag, value = build_bind_flags(Bind(path, path + "-there", mode))
    assert flag == "--mount"
    (row,) = csv.reader(io.StringIO(value))
    expected = ["type=bind", f"source={path}", f"destination={path}-there"]
    assert row == expected + (["ro"] if mode == "ro" else [])


def test_a_line_break_in_a_path_is_refused() -> None:
    with pytest.raises(SpecError, match="line break"):
        build_bind_flags(Bind("/a\nb", "/a"))


def test_the_engine_mounts_odd_paths(engine: EngineInfo, starter_image: Path, tmp_path: Path) -> None:
    source = tmp_path / "odd, dir:with 'q\" ü"
    source.mkdir()
    (source / "file").write_text("here")
    destination = '/mnt/odd, too: "x"'
    options = ContainerOptions(binds=(Bind(str(source), destination, "ro"),))
    env = build_engine_environment(os.environ)
    program = (
        "import os, sys; p = sys.argv[1]; print(open(p + '/file').read(), bool(os.statvfs(p).f_flag & os.ST_RDONLY))"
    )
    command = build_exec(
        engine, str(starter_image), ["python3", "-c", program, destination], env, options=options, timeout_s=120
    )
    assert Runner().run(command).stdout == "here True\n"


# --- containers


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({}, ("--no-eval", "--cleanenv"), id="default"),
        pytest.param({"clean_env": False}, ("--no-eval",), id="host-environment"),
        pytest.param({"fakeroot": True}, ("--fakeroot", "--no-eval", "--cleanenv"), id="fakeroot"),
        pytest.param({"isolation": "contain"}, ("--no-eval", "--cleanenv", "--contain"), id="contain"),
        pytest.param({"isolation": "containall"}, ("--no-eval", "--cleanenv", "--containall"), id="containall"),
        pytest.param({"workdir": "/w"}, ("--no-eval", "--cleanenv", "--workdir", "/w"), id="workdir"),
        pytest.param({"home": "none"}, ("--no-eval", "--cleanenv", "--no-home"), id="no-home"),
        pytest.param({"home": "/a:/b"}, ("--no-eval", "--cleanenv", "--home", "/a:/b"), id="home"),
        pytest.param({"network": "none"}, ("--no-eval", "--cleanenv", "--net", "--network", "none"), id="no-network"),
        pytest.param({"nv": True}, ("--no-eval", "--cleanenv", "--nv"), id="nv"),
        pytest.param({"rocm": True}, ("--no-eval", "--cleanenv", "--rocm"), id="rocm"),
        pytest.param({"writable_tmpfs": True}, ("--no-eval", "--cleanenv", "--writable-tmpfs"), id="writable-tmpfs"),
        pytest.param(
            {"overlays": ("/o.img", "/p.img:ro")},
            ("--no-eval", "--cleanenv", "--overlay", "/o.img", "--overlay", "/p.img:ro"),
            id="overlays",
        ),
        pytest.param(
            {"binds": (Bind("/b", "/c"),), "extra": ("--dns", "1.1.1.1")},
            ("--no-eval", "--cleanenv", "--mount", "type=bind,source=/b,destination=/c", "--dns", "1.1.1.1"),
            id="extra-flags-come-last",
        ),
    ],
)
def test_flags_of_a_container(fields: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert build_container_flags(ENGINE, ContainerOptions(**fields)) == HOST + expected


def test_an_old_engine_gets_no_flag_that_it_does_not_know() -> None:
    assert "--no-eval" not in build_container_flags(OLD, ContainerOptions())
    assert "--no-eval" in build_container_flags(CE, ContainerOptions())


def test_instance_start() -> None:
    command = build_instance_start(ENGINE, "/i.sif", "jpa-1", ContainerOptions(), {"A": "1"}, ["x"])
    flags = (*HOST, "--no-eval", "--cleanenv")
    assert command.argv == ("/e/apptainer", "instance", "start", *flags, "/i.sif", "jpa-1", "x")
    assert (command.env, command.subject, command.cwd) == ({"A": "1"}, "/i.sif", "/")


def test_exec_in_an_image_has_all_options() -> None:
    command = build_exec(
        ENGINE, "/i.sif", ["python3", "-V"], {}, options=ContainerOptions(nv=True), cwd="/w", timeout_s=3
    )
    flags = (*HOST, "--no-eval", "--cleanenv", "--nv", "--pwd", "/w")
    assert command.argv == ("/e/apptainer", "-q", "exec", *flags, "/i.sif", "python3", "-V")
    assert command.timeout_s == 3


def test_exec_in_an_instance_has_none_of_a_container() -> None:
    options = ContainerOptions(nv=True, overlays=("/o.img",), binds=(Bind("/b", "/b"),), extra=("--dns", "x"))
    command = build_exec(ENGINE, "instance://jpa-1", ["true"], {}, options=options)
    assert command.argv == ("/e/apptainer", "-q", "exec", *HOST, "--no-eval", "--cleanenv", "instance://jpa-1", "true")
    dirty = build_exec(ENGINE, "instance://jpa-1", ["true"], {}, options=ContainerOptions(clean_env=False))
    assert "--cleanenv" not in dirty.argv


def test_instance_stop_allows_itself_longer_than_the_engine() -> None:
    command = build_instance_stop(ENGINE, "jpa-1", {}, timeout_s=7)
    assert command.argv == ("/e/apptainer", "instance", "stop", "--timeout", "7", "jpa-1")
    assert command.timeout_s is not None
    assert command.timeout_s > 7


def test_build_has_no_deadline_and_takes_every_option() -> None:
    command = build_image_build(
        ENGINE,
        "/out",
        "/in.def",
        {},
        build_args={"V": "1", "W": "a b"},
        mksquashfs_args="-comp lz4",
        binds=["/cache:/cache"],
        is_sandbox=True,
        is_forced=True,
    )
    assert command.argv == (
        *("/e/apptainer", "build", *build_flags(ENGINE), "--sandbox", "--force", "--bind", "/cache:/cache"),
        *("--build-arg", "V=1", "--build-arg", "W=a b", "--mksquashfs-args", "-comp lz4", "/out", "/in.def"),
    )
    assert command.timeout_s is None


def test_singularity_gets_no_mksquashfs_args() -> None:
    command = build_image_build(CE, "/out.sif", "/in.def", {}, mksquashfs_args="-comp lz4")
    assert "--mksquashfs-args" not in command.argv


# --- the list of instances

ROW = {"instance": "jpa-1", "pid": 12, "img": "/i.sif", "ip": "", "logErrPath": "/l.err", "logOutPath": "/l.out"}


@pytest.mark.parametrize("content", [{"instances": []}, {"instances": None}], ids=["empty", "null"])
def test_no_instances(content: object) -> None:
    assert parse_instance_list(Completed(("e",), 0, json.dumps(content), "")) == ()


def test_rows_of_instances() -> None:
    (row,) = parse_instance_list(Completed(("e",), 0, json.dumps({"instances": [ROW]}), ""))
    assert (row.name, row.pid, row.image) == ("jpa-1", 12, "/i.sif")
    assert (row.log_err_path, row.log_out_path) == ("/l.err", "/l.out")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("INSTANCE NAME    PID", id="table"),
        pytest.param("[]", id="list"),
        pytest.param("{}", id="no-instances"),
        pytest.param('{"instances": [{"instance": "x"}]}', id="row-without-pid"),
        pytest.param(json.dumps({"instances": [{**ROW, "pid": "none"}]}), id="pid-is-no-number"),
        pytest.param('{"instances": 3}', id="number"),
        pytest.param('{"instances": ["x"]}', id="row-is-text"),
    ],
)
def test_an_unexpected_list_is_refused(text: str) -> None:
    with pytest.raises(EngineOutputError, match="instance list"):
        parse_instance_list(Completed(("e",), 0, text, ""))


def test_the_real_list_can_be_read(engine: EngineInfo) -> None:
    rows = Runner().run(build_instance_list(engine, build_engine_environment(os.environ)))
    assert all(row.pid > 0 and row.name for row in rows)
