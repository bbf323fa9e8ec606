"""The real engine, made to fail by an image, a flag or an instance: what it prints here and now must still be what the table expects."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_apptainer import errors as e
from jupyter_apptainer.engine.diagnose import diagnose, find_warnings
from tests.engine.bench import Bench, check


def test_missing_image(bench: Bench) -> None:
    check(bench.execute(image="no such.sif"), "image-missing", e.ImageNotFound, f"{bench.folder}/no such.sif")


def test_file_that_is_no_image(bench: Bench) -> None:
    junk = bench.folder / "junk.sif"
    junk.write_bytes(os.urandom(100_000))
    check(bench.execute(image=junk), "image-junk", e.ImageInvalid, str(junk))


def test_image_cut_short(bench: Bench) -> None:
    cut = bench.folder / "cut.sif"
    with bench.image.open("rb") as source, cut.open("wb") as target:
        target.write(source.read(bench.image.stat().st_size // 5))
    check(bench.execute(image=cut), "image-cut", e.ImageCorrupt, str(cut), subject=str(cut))


def test_image_cut_in_its_header(bench: Bench) -> None:
    cut = bench.folder / "cut.sif"
    with bench.image.open("rb") as source:
        cut.write_bytes(source.read(20_000))
    check(bench.execute(image=cut), "image-header", e.ImageCorrupt, str(cut))


def test_image_without_superblock(bench: Bench) -> None:
    damaged = bench.folder / "damaged.sif"
    shutil.copyfile(bench.image, damaged)
    with damaged.open("r+b") as stream:
        start = stream.read(1_000_000).index(b"hsqs")
        stream.seek(start)
        stream.write(bytes(96))
    check(bench.execute(image=damaged), "image-superblock", e.ImageCorrupt)


def test_image_with_damaged_blocks_is_not_taken_for_a_missing_program(bench: Bench) -> None:
    damaged = bench.folder / "damaged.sif"
    shutil.copyfile(bench.image, damaged)
    # The file system's tables lie at its end; what is before them is contents of files.
    with damaged.open("r+b") as stream:
        stream.seek(1 << 20)
        stream.write(os.urandom(damaged.stat().st_size - (5 << 20)))
    check(bench.execute(image=damaged), "image-blocks", e.ImageCorrupt, str(damaged), subject=str(damaged))


def test_missing_program(bench: Bench) -> None:
    completed = bench.execute(command=("nosuchprogram",))
    check(completed, "program-in-path", e.ProgramNotFound, "nosuchprogram")


def test_missing_program_by_path(bench: Bench) -> None:
    check(bench.execute(command=("/bin/nosuch",)), "program-path", e.ProgramNotFound, "/bin/nosuch")


def test_missing_program_of_a_shell(bench: Bench) -> None:
    completed = bench.execute(command=("sh", "-c", "exec /nosuch"))
    check(completed, "program-of-script", e.ProgramNotFound, "/nosuch")


def test_debug_output_is_understood(bench: Bench) -> None:
    debugging = replace(bench, global_flags=("-d",))
    check(debugging.execute(command=("nosuchprogram",)), "program-in-path", e.ProgramNotFound)


def test_missing_working_directory(bench: Bench) -> None:
    check(bench.execute("--pwd", "/nosuch"), "working-directory", e.CommandError, "/nosuch")


def test_writing_to_the_image(bench: Bench) -> None:
    completed = (
        bench.execute("--fakeroot", command=("touch", "/usr/x"))
        if os.geteuid()
        else bench.execute(command=("touch", "/usr/x"))
    )
    check(completed, "read-only", e.ReadOnlyFilesystem)


@pytest.mark.parametrize(
    ("words", "rule", "error", "says"),
    [
        (("--bind", "/nosuch"), "bind-missing", e.BindSourceNotFound, "/nosuch"),
        (("--mount", "type=bind,source=/nosuch,destination=/a"), "bind-missing", e.BindSourceNotFound, "/nosuch"),
        (("--bind", "a:b:c:d:e"), "bind-syntax", e.BindInvalid, "a:b:c"),
        (("--mount", "foo"), "bind-syntax", e.BindInvalid, "foo"),
        (("--bind", "/tmp:relative"), "bind-relative", e.BindInvalid, "/tmp"),
        (("--bind", "/etc/passwd:/tmp/"), "bind-kind", e.BindInvalid, "/etc/passwd"),
        (("--nosuchflag",), "flag", e.CommandError, "--nosuchflag"),
    ],
    ids=["missing", "missing mount", "syntax", "mount syntax", "relative", "file on folder", "unknown flag"],
)
def test_bind_or_flag(
    bench: Bench, words: tuple[str, ...], rule: str, error: type[e.ApptainerError], says: str
) -> None:
    check(bench.execute(*words), rule, error, says)


def test_bad_name_of_an_instance(bench: Bench) -> None:
    completed = bench.run("instance", "start", *bench.flags, bench.image, "a b")
    check(completed, "instance-name", e.InstanceNameInvalid, "'a b'")


def test_instance_that_exists(bench: Bench) -> None:
    with bench.instance("jpa-test-twice"):
        completed = bench.run("instance", "start", *bench.flags, bench.image, "jpa-test-twice")
        check(completed, "instance-exists", e.InstanceExists, "jpa-test-twice")


@pytest.mark.parametrize(
    "words", [("exec", "instance://jpa-none", "true"), ("instance", "stop", "jpa-none")], ids=["exec", "stop"]
)
def test_instance_that_is_gone(bench: Bench, words: tuple[str, ...]) -> None:
    flags = bench.flags if words[0] == "exec" else ()
    check(bench.run(words[0], *flags, *words[1:]), "instance-gone", e.InstanceNotFound, "jpa-none", subject="jpa-none")


def test_instance_whose_helper_died(bench: Bench) -> None:
    overlay = bench.make_overlay("a.img")
    with bench.instance("jpa-test-broken", "--overlay", overlay) as pids:
        kill_helper(pids["starter"], "squashfuse")
        completed = bench.execute(image="instance://jpa-test-broken", command=("/bin/ls",))
        check(completed, "instance-broken", e.InstanceBroken, "jpa-test-broken", subject="jpa-test-broken")


def test_instance_whose_only_helper_died_seems_to_have_no_programs(bench: Bench) -> None:
    target = "instance://jpa-test-empty"
    with bench.instance("jpa-test-empty") as pids:
        kill_helper(pids["starter"], "squashfuse")
        error = diagnose(bench.execute(image=target), title="try", subject=target)
        assert isinstance(error, e.ProgramNotFound | e.InstanceBroken)
        assert "start a new one" in str(error.hint)


def kill_helper(starter: int, name: str) -> None:
    (helper,) = [pid for pid in read_children(starter) if name in Path(f"/proc/{pid}/comm").read_text()]
    descriptor = os.pidfd_open(helper)
    os.kill(helper, signal.SIGKILL)
    select.select([descriptor], [], [], 10)
    os.close(descriptor)


def read_children(pid: int) -> list[int]:
    return [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]


def test_noise_of_a_good_run_is_no_warning(bench: Bench) -> None:
    completed = bench.execute()
    assert completed.returncode == 0
    assert find_warnings(completed) == ()
    assert not re.search("FATAL|ERROR", completed.stderr)
