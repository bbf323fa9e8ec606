"""The checks of this machine: cgroups, /proc, the first process and disks."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_apptainer.engine import host
from jupyter_apptainer.engine.host import scope, storage
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.places import Places
from tests.engine.machines import PYTHONPATH, UNSHARED, make_tree, probe_in_child

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
