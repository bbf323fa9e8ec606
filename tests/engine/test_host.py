"""The checks of this machine: its engine and user namespaces, as they are, and where a child process has been given less than we have."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_apptainer.engine import host
from jupyter_apptainer.engine.host import engine as engines
from jupyter_apptainer.engine.host import namespaces
from jupyter_apptainer.engine.locate import Capabilities, EngineInfo
from tests.engine.machines import UNSHARED, make_tree, probe_in_child

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
