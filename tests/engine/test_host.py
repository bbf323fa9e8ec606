"""The checks of this machine: as it is, and where a child process has been given less than we have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_apptainer.engine import host
from jupyter_apptainer.engine.host import Probe, gpu, namespaces, scope, storage
from jupyter_apptainer.engine.host import engine as engines
from jupyter_apptainer.engine.locate import Capabilities, EngineInfo
from jupyter_apptainer.places import Places

ROOT = Path(__file__).resolve().parents[2]
# A child that is started in another way than by installing finds the package, and what the tests were given.
PYTHONPATH = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
UNSHARED = ("unshare", "--user", "--map-root-user", "--mount")


def probe_in_child(expression: str, *prefix: str, script: str = "true", timeout_s: float = 60) -> Probe:
    """Evaluate an expression over `host` in a Python started by `prefix`, after the shell commands of `script`."""
    code = f"import json, os\nfrom jupyter_apptainer.engine import host\nprint(json.dumps(({expression}).to_json()))"
    shell = ("sh", "-c", f'{script} && exec "$@"', "sh")
    done = subprocess.run(
        [*prefix, *shell, sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr
    return Probe(**json.loads(done.stdout))


def make_tree(root: Path, files: dict[str, str]) -> Path:
    """Write files that only another machine would have."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


# --- the engine


def test_engine_that_was_found(engine: EngineInfo) -> None:
    probe = host.probe_engine(engine)
    assert probe.status != "fail"
    assert engine.version_text in probe.detail
    assert engine.path in probe.detail


def test_no_engine() -> None:
    probe = host.probe_engine(None)
    assert (probe.status, probe.fix) == ("fail", "jupyter apptainer engine install")


@pytest.mark.parametrize(
    ("flavour", "version", "status"),
    [
        ("apptainer", (1, 1, 9), "fail"),
        ("apptainer", (1, 2, 0), "warn"),
        ("apptainer", (1, 4, 4), "warn"),
        ("apptainer", (1, 4, 5), "ok"),
        ("singularity-ce", (3, 11, 0), "fail"),
        ("singularity-ce", (4, 3, 0), "ok"),
        ("singularity", (3, 8, 7), "fail"),
    ],
    ids=str,
)
def test_age_of_the_engine(engine: EngineInfo, flavour: str, version: tuple[int, int, int], status: str) -> None:
    other = replace(engine, flavour=flavour, version=version)  # type: ignore[arg-type]  # the table has just the flavours
    assert host.probe_engine(other).status == status


def test_settings_of_a_fresh_install(engine: EngineInfo) -> None:
    assert host.probe_settings(engine).status == "ok"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("user bind control = no", "fail"),
        ("enable overlay = no", "warn"),
        ("always use nv = yes", "warn"),
        ("limit container paths = /images", "warn"),
        ("# user bind control = no", "ok"),
    ],
    ids=str,
)
def test_settings_of_an_administrator(engine: EngineInfo, tmp_path: Path, line: str, status: str) -> None:
    config = tmp_path / "apptainer.conf"
    config.write_text(Path(engine.config_file).read_text() + f"\n{line}\n")
    probe = host.probe_settings(replace(engine, config_file=str(config)))
    assert probe.status == status
    if status != "ok":
        assert line.partition(" =")[0] in probe.detail
        assert str(config) in str(probe.fix)


@pytest.mark.parametrize(("setuid", "is_told"), [(True, True), (False, False)], ids=["setuid", "unprivileged"])
def test_size_of_the_writable_tmpfs_is_told_where_it_counts(
    engine: EngineInfo, tmp_path: Path, *, setuid: bool, is_told: bool
) -> None:
    config = tmp_path / "apptainer.conf"
    config.write_text("sessiondir max size = 17\n")
    probe = host.probe_settings(replace(engine, config_file=str(config), setuid=setuid))
    assert ("17 MiB" in probe.detail) is is_told


def test_settings_that_cannot_be_read(engine: EngineInfo, tmp_path: Path) -> None:
    assert host.probe_settings(replace(engine, config_file=str(tmp_path / "none"))).status == "warn"


def test_settings_are_parsed() -> None:
    assert engines.parse_settings("# a = b\nx = 1\n\nlong name =  y z \nx = 2\n") == {"x": "2", "long name": "y z"}


def test_variables_that_bend_commands_are_named_and_their_values_are_not() -> None:
    probe = host.probe_variables(
        {"APPTAINER_BIND": "/secret", "SINGULARITY_NV": "1", "APPTAINER_CACHEDIR": "/c", "HOME": "/h"}
    )
    assert probe.status == "warn"
    assert probe.fix == "unset APPTAINER_BIND SINGULARITY_NV"
    assert "/secret" not in probe.detail
    assert host.probe_variables({"APPTAINER_CACHEDIR": "/c"}).status == "ok"


# --- user namespaces


def test_user_namespaces_of_this_machine() -> None:
    assert namespaces.try_user_namespace().step is None
    assert host.probe_user_namespaces(None).status == "ok"


@pytest.mark.parametrize("kind", ["user", "mnt"])
def test_used_up_namespaces(kind: str) -> None:
    script = f"echo 0 > /proc/sys/user/max_{kind}_namespaces"
    probe = probe_in_child("host.probe_user_namespaces(None)", *UNSHARED, script=script)
    assert probe.status == "fail"
    assert probe.fix == f"sudo sysctl -w user.max_{kind}_namespaces=15000"


def test_namespaces_inside_an_unmapped_one() -> None:
    probe = probe_in_child("host.probe_user_namespaces(None)", "unshare", "--user")
    assert probe.status == "fail"
    assert "already in a user namespace" in probe.detail
    assert "seccomp=unconfined" in str(probe.fix)


def test_setuid_engine_can_do_without(engine: EngineInfo) -> None:
    trial = namespaces.NamespaceTrial("user namespace", 1)
    assert host.probe_user_namespaces(replace(engine, setuid=True), trial).status == "warn"


def test_namespaces_only_for_root(tmp_path: Path) -> None:
    root = make_tree(tmp_path, {"proc/sys/kernel/unprivileged_userns_clone": "0\n"})
    probe = host.probe_user_namespaces(None, namespaces.NamespaceTrial("user namespace", 1), root=root)
    assert probe.fix == "sudo sysctl -w kernel.unprivileged_userns_clone=1"


def test_apparmor_without_a_profile_for_this_engine(engine: EngineInfo, tmp_path: Path) -> None:
    packaged = "profile apptainer /usr/libexec/apptainer/bin/starter{,-suid} flags=(unconfined) {\n  userns,\n}\n"
    sysctl = {"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"}
    root = make_tree(tmp_path, {**sysctl, "etc/apparmor.d/apptainer": packaged})
    elsewhere = replace(engine, libexec="/home/u/engine/libexec")
    probe = host.probe_apparmor(elsewhere, root=root)
    assert probe.status == "fail"
    assert "/home/u/engine/libexec/apptainer/bin/starter" in str(probe.fix)
    assert "apparmor_parser -r" in str(probe.fix)
    packaged_engine = replace(engine, libexec="/usr/libexec")
    assert host.probe_apparmor(packaged_engine, root=root).status == "ok"
    # Python may not, but the engine may.
    trial = namespaces.NamespaceTrial("uid map", 13)
    assert host.probe_user_namespaces(packaged_engine, trial, root=root).status == "ok"
    assert host.probe_user_namespaces(elsewhere, trial, root=root).status == "fail"


def test_apparmor_fix_writes_a_profile(tmp_path: Path) -> None:
    command = namespaces.build_apparmor_fix("/opt/my engine/starter").split(" | ")[0]
    text = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
    assert text.splitlines()[-3:] == [
        'profile jupyter-apptainer "/opt/my engine/starter" flags=(unconfined) {',
        "  userns,",
        "}",
    ]


def test_apparmor_that_does_not_restrict(engine: EngineInfo, tmp_path: Path) -> None:
    assert host.probe_apparmor(engine, root=tmp_path).status == "ok"


def test_confinement_names_the_namespace() -> None:
    probe = probe_in_child("host.probe_confinement(None, os.environ)", *UNSHARED)
    assert probe.status == "ok"
    assert "already in a user namespace" in probe.detail


def test_setuid_engine_where_privileges_cannot_be_gained(engine: EngineInfo, tmp_path: Path) -> None:
    status = subprocess.run(
        ["setpriv", "--no-new-privs", "cat", "/proc/self/status"], capture_output=True, text=True, check=True
    ).stdout
    root = make_tree(tmp_path, {"proc/self/status": status})
    assert host.probe_confinement(replace(engine, setuid=True), {}, root=root).status == "fail"
    assert host.probe_confinement(replace(engine, setuid=False), {}, root=root).status == "ok"


def test_capabilities_of_an_ordinary_user() -> None:
    # In a user namespace without a map everybody is nobody.
    assert probe_in_child("host.probe_capabilities()", "unshare", "--user").status == "ok"


@pytest.mark.root
def test_capabilities_of_root_with_less() -> None:
    probe = probe_in_child("host.probe_capabilities()", "setpriv", "--bounding-set=-sys_boot")
    assert probe.status == "warn"
    assert "CAP_SYS_BOOT" in probe.detail
    assert "--drop-caps" in str(probe.fix)


@pytest.mark.root
def test_capabilities_of_full_root() -> None:
    assert host.probe_capabilities(Capabilities(permitted=0xFF, known=0xFF)).status == "ok"


# --- FUSE and programs


def test_fuse_device_of_this_machine() -> None:
    assert host.probe_fuse_device(None).status != "fail"


def test_fuse_device_that_is_missing(tmp_path: Path, engine: EngineInfo) -> None:
    probe = host.probe_fuse_device(None, str(tmp_path / "fuse"))
    assert probe.status == "fail"
    assert "modprobe fuse" in str(probe.fix)
    assert host.probe_fuse_device(replace(engine, setuid=True), str(tmp_path / "fuse")).status == "warn"


def test_fuse_device_that_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "fuse").touch()
    probe = host.probe_fuse_device(None, str(tmp_path / "fuse"))
    assert probe.status == "fail"
    assert "mknod -m 666" in str(probe.fix)


def test_fuse_device_without_permission() -> None:
    # In a new user namespace even root owns nothing of the host's, so a file of root's with mode 0600 stays shut.
    script = "true"
    probe = probe_in_child("host.probe_fuse_device(None, '/proc/1/mem')", "unshare", "--user", script=script)
    assert probe.status == "fail"
    assert "chmod 666" in str(probe.fix)


@pytest.mark.root
def test_fuse_device_for_root_alone(tmp_path: Path) -> None:
    device = tmp_path / "fuse"
    os.mknod(device, 0o020600, os.makedev(10, 229))
    device.chmod(0o600)
    probe = host.probe_fuse_device(None, str(device))
    assert probe.status == "warn"
    assert probe.fix == f"sudo chmod 666 {device}"


@pytest.mark.parametrize(
    ("release", "status"),
    [
        ("3.10.0-1160.el7", "fail"),
        ("4.17.1", "fail"),
        ("4.18.0-553.el8", "ok"),
        ("5.10.1", "ok"),
        ("6.8.0-generic", "ok"),
    ],
)
def test_age_of_linux(release: str, status: str) -> None:
    assert host.probe_kernel_version(release).status == status


def test_programs_of_this_machine_tell_their_versions(engine: EngineInfo) -> None:
    probe = host.probe_helpers(engine, os.environ)
    assert probe.status == "ok", probe.detail
    assert "squashfuse_ll " in probe.detail
    assert "mksquashfs 4." in probe.detail


def test_missing_program_is_named_with_its_package(engine: EngineInfo) -> None:
    # What cannot be executed is not there. In a mount namespace of the child's own.
    script = "for f in /usr/bin/fuse2fs /usr/sbin/fuse2fs /bin/fuse2fs /sbin/fuse2fs; do test ! -e $f || mount --bind /dev/null $f; done"
    probe = probe_in_child("host.probe_helpers(None, os.environ)", *UNSHARED, script=script)
    assert probe.status == "warn"
    assert "fuse2fs (no ext3 overlays)" in probe.detail.partition("missing: ")[2]
    assert str(probe.fix).startswith("sudo ")
    assert "fuse2fs" in str(probe.fix)


# --- ids


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ("someone:100000:65536\n", "ok"),
        ("4711:100000:65536\n", "ok"),
        ("someone:100000:1000\n", "warn"),
        ("other:100000:65536\n", "warn"),
        ("broken\nsomeone:1:x\n", "warn"),
        ("", "warn"),
    ],
    ids=["by name", "by number", "small", "other user", "broken", "empty"],
)
def test_subordinate_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, status: str) -> None:
    from jupyter_apptainer.engine.host import identity

    root = make_tree(tmp_path, {"etc/subuid": content, "etc/subgid": content})
    assert (identity.count_subordinate_ids(root / "etc/subuid", "someone", 4711) >= identity.WANTED_IDS) == (
        status == "ok"
    )


def test_fakeroot_of_a_user_without_ids(tmp_path: Path) -> None:
    probe = host.probe_fakeroot(root=tmp_path, uid=4711)
    assert probe.status == "warn"
    assert "usermod --add-subuids" in str(probe.fix)


def test_fakeroot_of_this_user() -> None:
    assert host.probe_fakeroot().status in ("ok", "warn")


# --- NVIDIA


def test_machine_without_gpu_is_fine(tmp_path: Path) -> None:
    probe = host.probe_nvidia(None, {}, root=tmp_path)
    assert (probe.status, probe.fix) == ("ok", None)


def test_gpu_without_device_files(tmp_path: Path) -> None:
    version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n"
    probe = host.probe_nvidia(None, {}, root=make_tree(tmp_path, {"proc/driver/nvidia/version": version}))
    assert probe.status == "warn"
    assert "550.54.15" in probe.detail
    assert "nvidia-modprobe" in str(probe.fix)


def test_gpu_whose_libraries_are_missing(tmp_path: Path) -> None:
    if "libcuda.so.1" in gpu.find_libraries():
        pytest.skip("this machine has them")
    probe = host.probe_nvidia(None, {}, root=make_tree(tmp_path, {"dev/nvidia0": "", "dev/nvidiactl": ""}))
    assert probe.status == "warn"
    assert "libcuda.so.1" in probe.detail


def test_one_device_of_a_job_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "find_libraries", lambda: frozenset(gpu._LIBRARIES))
    root = make_tree(tmp_path, {"dev/nvidia0": "", "dev/nvidia1": "", "dev/nvidia-uvm": ""})
    found = gpu.find_nvidia(root=root)
    assert (found.devices, found.problem) == (("nvidia0", "nvidia1"), "")
    (root / "dev/nvidia-uvm").unlink()
    assert "/dev/nvidia-uvm" in gpu.find_nvidia(root=root).problem


def test_windows_subsystem_has_another_device(tmp_path: Path) -> None:
    assert gpu.find_nvidia(root=make_tree(tmp_path, {"dev/dxg": ""})).devices == ("dxg",)


def test_libraries_are_those_of_the_loader() -> None:
    assert "libc.so.6" in gpu.find_libraries()


# --- cgroups, /proc, PID 1


def test_limits_need_a_scope_that_systemd_really_makes(tmp_path: Path) -> None:
    """A stand-in for systemd-run, since it cannot work on every machine; it has to be asked for all three limits."""
    program = tmp_path / "systemd-run"
    program.write_text('#!/bin/sh\ncase "$*" in *--scope*MemoryMax*CPUQuota*TasksMax*) exit 0;; esac\nexit 1\n')
    program.chmod(0o755)
    assert scope.try_scope(str(program)) == ""
    program.write_text("#!/bin/sh\necho 'Failed to connect to bus: Host is down' >&2\nexit 1\n")
    assert scope.try_scope(str(program)) == "Failed to connect to bus: Host is down"


def test_obstacle_of_this_machine_is_named_unless_there_is_none() -> None:
    obstacle = scope.find_cgroup_obstacle(os.environ)
    if not Path("/run/systemd/system").exists():
        assert obstacle == "systemd does not run this machine"
    elif host.probe_cgroups(os.environ).status != "ok":
        assert obstacle


def mountinfo(*mounts: tuple[str, str, str]) -> str:
    return "".join(f"22 1 0:21 / {where} {options} - {kind} none rw\n" for where, kind, options in mounts)


USER = 4711
SLICE = f"sys/fs/cgroup/user.slice/user-{USER}.slice/user@{USER}.service/cgroup.controllers"
UNIFIED = {"run/systemd/system/x": "", "proc/self/mountinfo": mountinfo(("/sys/fs/cgroup", "cgroup2", "rw"))}
SESSION = {"XDG_RUNTIME_DIR": "/run/user/4711", "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/4711/bus"}


@pytest.mark.parametrize(
    ("files", "environ", "status", "word"),
    [
        ({}, {}, "warn", "systemd does not run"),
        ({"run/systemd/system/x": ""}, {}, "warn", "version 2"),
        (UNIFIED, {}, "warn", "user session"),
        (UNIFIED, SESSION, "warn", "cpu, memory, pids"),
        ({**UNIFIED, SLICE: "memory pids\n"}, SESSION, "warn", "limits on cpu"),
        ({**UNIFIED, SLICE: "cpuset cpu io memory pids\n"}, SESSION, "ok", "delegated"),
    ],
    ids=["no systemd", "version 1", "no session", "no delegation", "no cpu", "all"],
)
def test_cgroups(tmp_path: Path, files: dict[str, str], environ: dict[str, str], status: str, word: str) -> None:
    probe = host.probe_cgroups(environ, root=make_tree(tmp_path, files), uid=USER)
    assert probe.status == status
    assert word in probe.detail


def test_hidepid_hinders_only_setuid_engines(engine: EngineInfo) -> None:
    namespace = (*UNSHARED, "--pid", "--fork")
    probe = probe_in_child("host.probe_hidepid(None)", *namespace, script="mount -t proc -o hidepid=2 proc /proc")
    assert probe.status == "ok"
    assert "hidepid" in probe.detail


def test_hidepid_and_a_setuid_engine(engine: EngineInfo, tmp_path: Path) -> None:
    hidden = mountinfo(("/proc", "proc", "rw,hidepid=invisible"))
    root = make_tree(tmp_path, {"proc/self/mountinfo": hidden})
    probe = host.probe_hidepid(replace(engine, setuid=True), root=root)
    assert (probe.status, probe.fix) == ("fail", "sudo mount -o remount,hidepid=0 /proc")
    # The topmost mount counts.
    make_tree(tmp_path, {"proc/self/mountinfo": hidden + mountinfo(("/proc", "proc", "rw"))})
    assert host.probe_hidepid(replace(engine, setuid=True), root=root).status == "ok"


def test_first_process_that_never_reaps() -> None:
    # prctl(PR_SET_CHILD_SUBREAPER): orphans come to the child, which does not care for them.
    expression = "__import__('ctypes').CDLL(None).prctl(36, 1, 0, 0, 0) or host.probe_reaping(timeout_s=0.3)"
    probe = probe_in_child(expression)
    assert probe.status == "warn"
    assert "--init" in str(probe.fix)


def test_answer_about_pid_1_is_kept(places: Places) -> None:
    first = host.probe_reaping(places)
    (places.probes / "host.json").stat()
    assert host.probe_reaping(places) == first


# --- disks


MOUNTS = (
    "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
    "30 27 0:25 / /home rw,relatime - nfs4 server:/home rw\n"
    "31 27 0:26 / /scratch rw,noexec - lustre x rw\n"
    "32 30 0:27 / /home/u/my\\040disk rw - xfs /dev/vdb rw\n"
    "33 27 0:28 / /tmp rw - ext4 /dev/vdc rw\n"
    "34 27 0:29 / /tmp rw,nosuid - tmpfs none rw\n"
)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/opt/x", "ext4"),
        ("/home/u", "nfs4"),
        ("/homestead", "ext4"),
        ("/home/u/my disk/a", "xfs"),
        ("/scratch", "lustre"),
        ("/tmp/a", "tmpfs"),
    ],
    ids=str,
)
def test_mount_of_a_path(path: str, kind: str) -> None:
    assert storage.find_mount(Path(path), MOUNTS)[0] == kind


def test_disk_of_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    disk = storage.load_disk(tmp_path / "a/b/c")
    assert disk.path == tmp_path
    assert disk.free_bytes > 0
    assert disk.kind != "unknown"


def test_disk_shared_between_machines(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "root", {"proc/self/mountinfo": f"27 1 0:1 / {tmp_path} rw - lustre x rw\n"})
    disk = storage.load_disk(tmp_path, root=root)
    assert disk.is_network


def test_locks_work_here(tmp_path: Path) -> None:
    assert storage.can_lock(tmp_path)


@pytest.mark.parametrize(
    ("options", "wanted_mib", "status", "word"),
    [
        ("size=1M", 100, "fail", "are wanted"),
        ("size=30M", 100, "warn", "are wanted"),
        ("size=200M,noexec", 100, "warn", "noexec"),
    ],
    ids=["full", "small", "noexec"],
)
def test_disk_with_little_space_or_rights(
    tmp_path: Path, options: str, wanted_mib: int, status: str, word: str
) -> None:
    from_host = f"host.storage.Role('x', __import__('pathlib').Path({str(tmp_path)!r}), 'TMPDIR', {wanted_mib}, must_be_local=True)"
    script = f"mount -t tmpfs -o {options} none '{tmp_path}'"
    probe = probe_in_child(f"host.storage.probe_disk({from_host})", *UNSHARED, script=script)
    assert probe.status == status
    assert word in probe.detail
    assert "export TMPDIR=" in str(probe.fix)


def test_disk_that_is_not_ours(tmp_path: Path) -> None:
    role = storage.Role("x", Path("/proc/1/nosuch"), "TMPDIR", 0)
    assert storage.probe_disk(role).status == "fail"


def test_roles_follow_the_variables(places: Places, tmp_path: Path) -> None:
    environ = {"HOME": "/home/u", "APPTAINER_CACHEDIR": "/c", "TMPDIR": "/t", "APPTAINER_TMPDIR": "/at"}
    paths = {role.variable: str(role.path) for role in host.build_roles(None, places, environ)}
    assert paths["APPTAINER_CACHEDIR"] == "/c"
    assert paths["APPTAINER_TMPDIR"] == "/at"
    assert paths["APPTAINER_CONFIGDIR"] == "/home/u/.apptainer"


def test_nothing_is_looked_at_on_import() -> None:
    code = "import sys, jupyter_apptainer.engine.host; print(sorted({'ctypes', 'jupyter_client', 'rich'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": PYTHONPATH}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"
