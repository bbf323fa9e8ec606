"""The real engine, made to fail: what it prints here and now must still be what the table expects."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from jupyter_apptainer import errors as e
from jupyter_apptainer.engine.command import Command, Completed, returns_nothing
from jupyter_apptainer.engine.diagnose import diagnose, find_rule, find_warnings
from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo, build_flags, run_flags
from jupyter_apptainer.engine.runner import Runner

# Programs that the engine needs for every start and that a test with a folder of its own must therefore put into it.
BASIC_PROGRAMS = (
    "dd",
    "truncate",
    "mkfs.ext3",
    "unsquashfs",
    "mksquashfs",
    "newuidmap",
    "newgidmap",
    "ldconfig",
    "cp",
    "tar",
)


@dataclass(frozen=True)
class Bench:
    """The engine with a folder for its own files and one for ours, both of this test alone."""

    engine: EngineInfo
    image: Path
    folder: Path
    flags: tuple[str, ...]
    env: Mapping[str, str]
    global_flags: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    names: list[str] = field(default_factory=list)

    def run(self, *words: str | Path, env: Mapping[str, str] | None = None) -> Completed:
        argv = (*self.prefix, self.engine.path, *self.global_flags, *map(str, words))
        command = Command(
            argv, {**self.env, **(env or {})}, returns_nothing, "try", timeout_s=120, cwd=str(self.folder)
        )
        return Runner().complete(command)

    def execute(
        self, *words: str | Path, image: Path | str | None = None, command: Sequence[str] = ("true",)
    ) -> Completed:
        """Run `exec` with the flags that this host makes necessary, then `words`."""
        return self.run("exec", *self.flags, *words, image or self.image, *command)

    def make_overlay(self, name: str) -> Path:
        completed = self.run("overlay", "create", "--size", "64", name)
        assert completed.returncode == 0, completed.stderr
        return self.folder / name

    @contextmanager
    def instance(self, name: str, *words: str | Path) -> Iterator[dict[str, int]]:
        """Start an instance; yields {"init": pid, "starter": pid}. Killing init makes the starter take all away."""
        completed = self.run("instance", "start", *self.flags, *words, self.image, name)
        assert completed.returncode == 0, completed.stderr
        (path,) = self.folder.glob(f"config/instances/app/*/*/{name}/{name}.json")
        record = json.loads(path.read_text())
        pids = {"init": record["pid"], "starter": record["ppid"]}
        starter = os.pidfd_open(pids["starter"])
        try:
            yield pids
        finally:
            with suppress(ProcessLookupError):
                os.kill(pids["init"], signal.SIGKILL)
            assert select.select([starter], [], [], 15)[0], "the starter does not end"
            os.close(starter)


@pytest.fixture
def bench(engine: EngineInfo, starter_image: Path, tmp_path: Path) -> Bench:
    env = build_engine_environment(os.environ) | {
        "APPTAINER_CONFIGDIR": str(tmp_path / "config"),
        "APPTAINER_CACHEDIR": str(tmp_path / "cache"),
        # A failed build leaves its temporary folders.
        "TMPDIR": str(tmp_path),
    }
    return Bench(engine, starter_image, tmp_path, run_flags(engine), env)


def check(
    completed: Completed, rule: str, error: type[e.ApptainerError], says: str = "", *, subject: str = ""
) -> e.ApptainerError:
    """The run must have failed, and be explained by exactly that row."""
    assert completed.returncode != 0
    found = find_rule(completed)
    assert found is not None, completed.stderr
    assert found.name == rule, completed.stderr
    explained = diagnose(completed, title="try", subject=subject)
    assert type(explained) is error
    assert says in explained.message
    assert explained.hint
    return explained


# --- images


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


# --- overlays


def test_missing_overlay(bench: Bench) -> None:
    error = check(bench.execute("--overlay", "/nosuch.img"), "overlay-missing", e.OverlayNotFound, "/nosuch.img")
    assert "apptainer overlay create" in str(error.hint)


def test_overlay_in_use_names_the_instance(bench: Bench) -> None:
    overlay = bench.make_overlay("a.img")
    with bench.instance("jpa-test-busy", "--overlay", overlay):
        for mode in ("", ":ro"):
            error = check(bench.execute("--overlay", f"{overlay}{mode}"), "overlay-busy", e.OverlayBusy, str(overlay))
            assert "jpa-test-busy" in str(error.hint)


def test_two_writable_overlays(bench: Bench) -> None:
    first, second = bench.make_overlay("a.img"), bench.make_overlay("b.img")
    completed = bench.execute("--overlay", first, "--overlay", second)
    check(completed, "overlay-two", e.OverlayConflict, str(second))


def test_writable_overlay_and_tmpfs(bench: Bench) -> None:
    completed = bench.execute("--overlay", bench.make_overlay("a.img"), "--writable-tmpfs")
    check(completed, "overlay-and-tmpfs", e.OverlayConflict, "a.img")


def test_existing_overlay(bench: Bench) -> None:
    bench.make_overlay("a.img")
    check(bench.run("overlay", "create", "--size", "64", "a.img"), "overlay-exists", e.OverlayCreateError, "a.img")


def test_overlay_too_small(bench: Bench) -> None:
    check(bench.run("overlay", "create", "--size", "10", "a.img"), "overlay-small", e.OverlayCreateError, "64 MiB")


def test_overlay_in_a_missing_folder(bench: Bench) -> None:
    completed = bench.run("overlay", "create", "--size", "64", "/nosuch/a.img")
    check(completed, "overlay-create", e.OverlayCreateError, "/nosuch/a.img")


def test_overlay_that_is_no_image(bench: Bench) -> None:
    (bench.folder / "junk.img").write_bytes(os.urandom(5000))
    check(bench.execute("--overlay", "junk.img"), "overlay-invalid", e.ImageInvalid, "junk.img")


def test_image_without_embedded_overlay(bench: Bench) -> None:
    copy = bench.folder / "copy.sif"
    shutil.copyfile(bench.image, copy)
    check(bench.execute("--writable", image=copy), "overlay-not-embedded", e.OverlayNotFound, str(copy))


def test_image_that_must_not_be_written(bench: Bench) -> None:
    if os.geteuid() == 0:
        bench = as_nobody(bench)
    copy = bench.folder / "copy.sif"
    shutil.copyfile(bench.image, copy)
    copy.chmod(0o444)
    check(bench.execute("--writable", image=copy), "image-not-writable", e.OverlayReadOnly, str(copy))


def test_full_overlay(bench: Bench) -> None:
    # Any folder that is ours in both modes of use and not bound from the host.
    completed = bench.run("overlay", "create", "--size", "64", "--create-dir", "/jpa-data", "a.img")
    assert completed.returncode == 0
    fill = "dd if=/dev/zero of=/jpa-data/big bs=1M count=100; exit 1"
    completed = bench.execute("--overlay", "a.img", command=("sh", "-c", fill))
    error = check(completed, "overlay-full", e.OverlayFull, "a.img")
    assert "overlay grow a.img" in str(error.hint)


@pytest.mark.user
def test_overlay_without_write_permission_is_a_warning(bench: Bench) -> None:
    overlay = bench.make_overlay("a.img")
    overlay.chmod(0o444)
    completed = bench.execute("--overlay", overlay)
    assert completed.returncode == 0, completed.stderr
    (warning,) = find_warnings(completed)
    assert isinstance(warning, e.OverlayReadOnly)
    check(bench.execute("--overlay", overlay, command=("touch", "/jpa-x")), "overlay-read-only", e.OverlayReadOnly)


# --- binds, instances, flags


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


# --- what the host may refuse


def test_no_more_user_namespaces(bench: Bench) -> None:
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    limited = replace(
        bench, prefix=("unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh"), flags=("--userns",)
    )
    error = check(limited.execute(), "userns-limit", e.UserNamespacesUnavailable)
    assert "user.max_user_namespaces" in str(error.hint)


def test_no_more_mount_namespaces(bench: Bench) -> None:
    forbid = 'echo 0 > /proc/sys/user/max_mnt_namespaces; exec "$@"'
    limited = replace(
        bench, prefix=("unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh"), flags=("--userns",)
    )
    check(limited.execute(), "userns-limit", e.UserNamespacesUnavailable, "mount")


def test_user_without_mapping_may_not_make_user_namespaces(bench: Bench) -> None:
    unmapped = replace(bench, prefix=("unshare", "--user"), flags=("--userns",))
    check(unmapped.execute(), "userns-not-allowed", e.UserNamespacesUnavailable)


def test_fakeroot_in_a_container(bench: Bench) -> None:
    nested = replace(bench, prefix=("unshare", "--user"), flags=("--fakeroot",))
    check(nested.execute(), "fakeroot-without-userns", e.UserNamespacesUnavailable)


def test_limits_without_cgroups(bench: Bench) -> None:
    if Path("/run/systemd/system").exists():
        pytest.skip("systemd runs here, so that limits may work")
    check(bench.execute("--memory", "64M"), "cgroups", e.CgroupsUnavailable)


def test_network_of_its_own(bench: Bench) -> None:
    completed = bench.execute("--userns", "--net", "--network", "bridge")
    check(completed, "network", e.NetworkUnavailable)


def test_nvidia_container_cli(bench: Bench) -> None:
    if shutil.which("nvidia-container-cli"):
        pytest.skip("it is installed here")
    check(bench.execute("--nvccli"), "nvidia-container-cli", e.EngineError)


def test_folder_of_the_engine_that_cannot_be_made(bench: Bench) -> None:
    file = bench.folder / "file"
    file.touch()
    env = {"APPTAINER_CONFIGDIR": str(file / "below")}
    completed = bench.run("instance", "start", *bench.flags, bench.image, "jpa-test-config", env=env)
    check(completed, "config-dir", e.ConfigDirUnwritable, str(file))


def with_programs(bench: Bench, *programs: str) -> Bench:
    """The same engine, but it finds only these helper programs and the basic ones."""
    folder = bench.folder / "programs"
    folder.mkdir()
    for name in (*BASIC_PROGRAMS, *programs):
        own = Path(bench.engine.libexec, "apptainer", "bin")
        path = shutil.which(name, path=f"{own}:{os.environ['PATH']}:/usr/sbin:/sbin")
        if path:
            (folder / name).symlink_to(path)
    config = bench.folder / "apptainer.conf"
    config.write_text(Path(bench.engine.config_file).read_text() + f"\nbinary path = {folder}\n")
    return replace(bench, global_flags=("--config", str(config)))


def without_own_helpers(bench: Bench) -> Bench:
    """The same engine, less the FUSE helpers that some installs carry in a folder that no setting takes away.

    An engine in a folder of its own computes its paths from where its program lies, so a copy of links will do.
    """
    if not any(Path(bench.engine.libexec, "apptainer/bin").glob("*fuse*")):
        return bench
    prefix = Path(bench.engine.path).resolve().parents[1]
    assert prefix != Path("/usr"), "the tests cannot hide the helpers of an engine that is installed system-wide"
    copy = bench.folder / "engine"
    shutil.copytree(prefix, copy, symlinks=True, copy_function=link_or_copy)
    for helper in copy.glob("libexec/apptainer/bin/*fuse*"):
        helper.unlink()
    return replace(
        bench, engine=replace(bench.engine, path=str(copy / Path(bench.engine.path).resolve().relative_to(prefix)))
    )


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def test_without_squashfuse_the_image_is_unpacked(bench: Bench) -> None:
    completed = with_programs(without_own_helpers(bench)).execute()
    if completed.returncode == 0:
        (warning,) = find_warnings(completed)
        assert isinstance(warning, e.FuseHelperMissing)
        assert "squashfuse" in warning.message
    else:
        # Root with less than all capabilities: the unpacking run of the engine is not given our flags.
        check(completed, "image-unpack", e.FuseHelperMissing, "squashfuse")


def test_without_fuse2fs_no_overlay(bench: Bench) -> None:
    overlay = bench.make_overlay("a.img")
    completed = with_programs(without_own_helpers(bench), "squashfuse_ll", "squashfuse").execute("--overlay", overlay)
    check(completed, "fuse2fs-missing", e.FuseHelperMissing)


# --- what only root can bring about


def in_mount_namespace(bench: Bench, script: str) -> Bench:
    return replace(bench, prefix=("unshare", "--mount", "sh", "-c", script + '; exec "$@"', "sh"))


def as_nobody(bench: Bench) -> Bench:
    """Run the engine as user nobody, with a usable /dev/fuse and a folder that is theirs."""
    fuse = bench.folder / "fuse"
    os.mknod(fuse, 0o600 | 0o020000, os.makedev(10, 229))
    fuse.chmod(0o666)
    for path in (bench.folder, *bench.folder.parents[:2]):
        path.chmod(path.stat().st_mode | 0o755)
    os.chown(bench.folder, 65534, 65534)
    program = Path(bench.engine.path).resolve()
    script = f"mount --bind '{fuse}' /dev/fuse" + open_to_all(bench.folder, program.parents[1], bench.image)
    env = {**bench.env, "HOME": str(bench.folder)}
    inner = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    bench = replace(bench, engine=replace(bench.engine, path=str(program)))
    changed = in_mount_namespace(bench, script)
    return replace(changed, prefix=(*changed.prefix, *inner), flags=(), env=env)


def open_to_all(folder: Path, *wanted: Path) -> str:
    """Shell text that makes paths below root's home reachable for everybody, in this mount namespace alone."""
    blocked = {next((p for p in reversed(path.parents) if not p.stat().st_mode & 0o001), None) for path in wanted}
    text = ""
    for number, path in enumerate(wanted):
        kept = folder / f"kept{number}"
        kept.mkdir() if path.is_dir() else kept.touch()
        text += f" && mount --bind '{path}' '{kept}'"
    for closed in filter(None, blocked):
        text += f" && mount -t tmpfs -o mode=755 tmpfs '{closed}'"
    for number, path in enumerate(wanted):
        make = f"mkdir -p '{path}'" if path.is_dir() else f"mkdir -p '{path.parent}' && touch '{path}'"
        if any(closed and path.is_relative_to(closed) for closed in blocked):
            text += f" && {make} && mount --bind '{folder}/kept{number}' '{path}'"
    return text


@pytest.mark.root
def test_fuse_device_that_is_no_device(bench: Bench) -> None:
    check(in_mount_namespace(bench, "mount --bind /dev/null /dev/fuse").execute(), "fuse-device", e.FuseUnavailable)


@pytest.mark.root
def test_fuse_device_without_permission(bench: Bench) -> None:
    # In a user namespace of its own root may not pass over the permissions of somebody else's file.
    device = bench.folder / "fuse"
    os.mknod(device, 0o600 | stat.S_IFCHR, os.makedev(10, 229))
    os.chown(device, 65534, 65534)
    hidden = in_mount_namespace(bench, f"mount --bind '{device}' /dev/fuse")
    error = check(hidden.execute("--userns"), "fuse-device", e.FuseUnavailable)
    assert "chmod 666 /dev/fuse" in str(error.hint)


@pytest.mark.root
def test_root_without_range_of_ids(bench: Bench) -> None:
    bench = in_mount_namespace(bench, "mount --bind /dev/null /etc/subuid")
    check(bench.run("exec", "--fakeroot", bench.image, "true"), "subuid", e.FakerootUnavailable, "root")


@pytest.mark.root
def test_root_without_all_capabilities(bench: Bench) -> None:
    prefix = ("setpriv", "--bounding-set=-sys_boot", "--inh-caps=-all", "--ambient-caps=-all")
    completed = replace(bench, prefix=prefix).run("exec", bench.image, "true")
    error = check(completed, "capabilities", e.MissingCapabilities)
    assert "CAP_SYS_BOOT" in str(error.hint)


@pytest.mark.root
def test_newgidmap_in_a_container(bench: Bench) -> None:
    nested = replace(bench, prefix=("unshare", "--user", "--map-root-user"), flags=("--fakeroot",))
    check(nested.execute(), "newuidmap", e.FakerootUnavailable)


@pytest.mark.root
def test_disk_full_while_an_overlay_is_made(bench: Bench) -> None:
    small = bench.folder / "small"
    small.mkdir()
    full = in_mount_namespace(bench, f"mount -t tmpfs -o size=20M none '{small}'")
    completed = full.run("overlay", "create", "--size", "64", small / "a.img")
    check(completed, "disk-full", e.DiskFull, "a.img")


@pytest.mark.root
def test_disk_full_while_an_image_is_built(bench: Bench) -> None:
    small = bench.folder / "small"
    small.mkdir()
    full = in_mount_namespace(bench, f"mount -t tmpfs -o size=20M none '{small}'")
    env = {"APPTAINER_TMPDIR": str(small)}
    completed = full.run("build", *build_flags(bench.engine), "b.sif", bench.image, env=env)
    check(completed, "disk-full", e.DiskFull, str(small))


@pytest.mark.root
def test_overlay_of_another_mode(bench: Bench) -> None:
    bench = as_nobody(bench)
    overlay = bench.make_overlay("a.img")
    completed = bench.execute("--fakeroot", "--overlay", overlay)
    error = check(completed, "overlay-mode", e.OverlayModeMismatch, str(overlay))
    assert f"{overlay}:ro" in str(error.hint)


@pytest.mark.root
def test_image_without_read_permission(bench: Bench) -> None:
    secret = bench.folder / "secret.sif"
    with bench.image.open("rb") as source:
        secret.write_bytes(source.read(50_000))
    secret.chmod(0o600)
    check(as_nobody(bench).execute(image=secret), "image-unreadable", e.ImageNotFound, str(secret))


# --- pull and build


@pytest.mark.parametrize(
    ("uri", "rule"),
    [
        ("docker://localhost:1/x", "registry-refused"),
        ("docker://nosuchhost.invalid/x", "registry-unknown-host"),
        ("library://x/y", "registry-library"),
        ("oras://localhost:1/x", "registry-reference"),
    ],
    ids=["refused", "unknown host", "library", "reference"],
)
def test_pull(bench: Bench, uri: str, rule: str) -> None:
    # Straight there: what a proxy says about such names is the proxy's own text.
    env = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), "")
    check(bench.run("pull", "x.sif", uri, env=env), rule, e.RegistryError, subject=uri)


def test_pull_over_a_file(bench: Bench) -> None:
    (bench.folder / "x.sif").touch()
    check(bench.run("pull", "x.sif", "docker://localhost:1/x"), "pull-exists", e.RegistryError, "x.sif")


def test_pull_from_a_server_without_tls(bench: Bench, plain_http_server: int) -> None:
    completed = bench.run("pull", "x.sif", f"docker://localhost:{plain_http_server}/x")
    check(completed, "registry-plain-http", e.RegistryError)


@pytest.fixture
def plain_http_server() -> Iterator[int]:
    import http.server
    import threading

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("definition", "rule", "error"),
    [
        ("Bootstrap: localimage\nFrom: /nosuch.sif\n", "image-missing", e.ImageNotFound),
        ("Bootstrap: localimage\nFrom: IMAGE\n%pst\nls\n", "build-sections", e.BuildError),
        ("Bootstrap: nosuch\nFrom: x\n", "build-source", e.BuildError),
        ("From: x\n%post\nls\n", "build-header", e.BuildError),
        ("Bootstrap: localimage\nFrom: {{ IMG }}\n", "build-variable", e.BuildError),
        ("Bootstrap: docker\nFrom: localhost:1/X\n", "registry-reference", e.RegistryError),
    ],
    ids=["missing base", "bad section", "bad agent", "no header", "variable", "reference"],
)
def test_build_of_a_wrong_definition(bench: Bench, definition: str, rule: str, error: type[e.ApptainerError]) -> None:
    (bench.folder / "x.def").write_text(definition.replace("IMAGE", str(bench.image)))
    check(bench.run("build", *build_flags(bench.engine), "x.sif", "x.def"), rule, error)


def test_build_of_a_missing_definition(bench: Bench) -> None:
    completed = bench.run("build", *build_flags(bench.engine), "x.sif", "/nosuch.def")
    check(completed, "build-definition", e.BuildError, "/nosuch.def")


def test_build_over_a_file(bench: Bench) -> None:
    (bench.folder / "x.sif").touch()
    (bench.folder / "x.def").write_text("Bootstrap: localimage\nFrom: /nosuch.sif\n")
    completed = bench.run("build", *build_flags(bench.engine), "x.sif", "x.def")
    check(completed, "build-exists", e.BuildError, "x.sif")


@pytest.mark.slow
def test_build_whose_script_fails(bench: Bench) -> None:
    (bench.folder / "x.def").write_text(f"Bootstrap: localimage\nFrom: {bench.image}\n%post\necho so much; exit 7\n")
    completed = bench.run("build", *build_flags(bench.engine), "x.sif", "x.def")
    error = check(completed, "build-section", e.BuildError, subject="x.def")
    assert any("so much" in line for line in error.log_tail)


def test_noise_of_a_good_run_is_no_warning(bench: Bench) -> None:
    completed = bench.execute()
    assert completed.returncode == 0
    assert find_warnings(completed) == ()
    assert not re.search("FATAL|ERROR", completed.stderr)
