"""What apt in a build is told of this host's mirror."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from jupyter_apptainer.engine.apt import Mirror, find_mirror, load_os_release, parse_archives
from jupyter_apptainer.images.host_apt import build_apt_sources, write_apt_settings

_MIRROR = Mirror("http://mirror.example/debian", "bookworm", "debian")


def test_image_of_another_release_or_distribution_is_not_given_the_hosts_own() -> None:
    host = {"ID": "debian", "VERSION_CODENAME": "bookworm"}
    other = build_apt_sources(_MIRROR, host, {"ID": "debian", "VERSION_CODENAME": "bullseye"})
    assert other == "deb http://mirror.example/debian bullseye main\n"
    assert build_apt_sources(_MIRROR, host, {"ID": "ubuntu", "VERSION_CODENAME": "noble"}) == ""
    assert build_apt_sources(_MIRROR, host, {"ID": "alpine"}) == ""


def test_image_of_the_hosts_release_has_its_updates() -> None:
    host, mirror = load_os_release(), find_mirror()
    sources = build_apt_sources(mirror, host, {"ID": mirror.distribution, "VERSION_CODENAME": mirror.suite})
    suites = [line.split()[2] for line in sources.splitlines()]
    assert suites[0] == mirror.suite
    assert all(suite.startswith(mirror.suite) for suite in suites)
    assert len(set(sources.splitlines())) == len(suites)


def test_archives_are_read_from_what_apt_says() -> None:
    listing = (
        "'http://a/debian/dists/bookworm/InRelease' a_InRelease 0 \n"
        "'http://a/debian/dists/bookworm/main/binary-amd64/Packages.xz' a_Packages 0 \n"
        "'http://b/debian-security/dists/bookworm-security/InRelease' b_InRelease 0 \n"
    )
    assert parse_archives(listing) == [
        ("http://a/debian", "bookworm"),
        ("http://b/debian-security", "bookworm-security"),
    ]


@pytest.mark.parametrize("has_certificates", [True, False], ids=["certificates", "none"])
def test_apt_reads_lists_and_keeps_caches_in_the_mount_alone(has_certificates: bool, tmp_path: Path) -> None:
    variables = write_apt_settings(tmp_path, str(tmp_path), "deb http://a b c\n", has_certificates=has_certificates)
    dump = subprocess.run(
        ["apt-config", "dump"], env={**os.environ, **variables}, capture_output=True, text=True, check=True
    ).stdout
    for line in (
        f'Dir::Etc::sourcelist "{tmp_path}/apt/sources.list";',
        f'Dir::State::lists "{tmp_path}/apt/lists";',
        f'Dir::Cache "{tmp_path}/apt/cache";',
        'Dpkg::Options:: "--force-unsafe-io";',
    ):
        assert line.lower() in dump.lower()
    assert (f'Acquire::https::CAInfo "{tmp_path}/ca.crt";' in dump) == has_certificates
