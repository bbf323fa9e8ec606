"""The real engine on a host that refuses: what it prints must still be what the table expects."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_apptainer import errors as e
from jupyter_apptainer.engine.diagnose import find_warnings
from jupyter_apptainer.engine.locate import build_flags
from tests.engine.bench import Bench, as_nobody, check, in_mount_namespace

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
