"""What apt in a build is told of this host's mirror."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from jupyter_apptainer.engine.apt import Mirror, find_mirror, load_os_release, parse_archives
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.images.build import BuildOptions, build_image
from jupyter_apptainer.images.host_apt import AptRoom, build_apt_sources, write_apt_settings
from jupyter_apptainer.images.recipes.sources import load_recipe
from jupyter_apptainer.places import Places

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
    variables, inside = write_apt_settings(
        tmp_path, str(tmp_path), "deb http://a b c\n", has_certificates=has_certificates
    )
    dump = subprocess.run(
        ["apt-config", "dump"], env={**os.environ, **variables}, capture_output=True, text=True, check=True
    ).stdout
    for line in (
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list";',
        f'Dir::State::lists "{inside}/lists";',
        f'Dir::Cache "{inside}/cache";',
        'Dpkg::Options:: "--force-unsafe-io";',
    ):
        assert line.lower() in dump.lower()
    assert (f'Acquire::https::CAInfo "{tmp_path}/ca.crt";' in dump) == has_certificates


def test_lists_are_kept_for_the_next_build_whole_or_not_at_all(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    for number in ("1", "2", "3"):
        room = AptRoom(tmp_path / number, tmp_path / "cache")
        room.open("deb http://a b c\n")
        place = room.folder / "lists"
        seen = {path.name: path.read_text() for path in place.iterdir() if path.is_file()}
        assert seen == ({} if number == "1" else {"a_InRelease": "1", "a_Packages": "1"})
        assert room.lacks_lists == (number == "1")
        (place / "lock").touch()
        if number == "1":
            for name in ("a_InRelease", "a_Packages"):
                (place / name).write_text(number)
        else:
            # Interrupted while it fetched: what was there before stays.
            (place / "a_InRelease").unlink()
        room.keep()
    assert len(list((tmp_path / "cache/apt").iterdir())) == 1


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_lists_are_there_when_the_step_that_fetched_them_is_not_run_again(
    engine: EngineInfo, starter_image: Path, places: Places, tmp_path: Path
) -> None:
    dockerfile = tmp_path / "Dockerfile"
    told: list[str] = []
    for package in ("hello", "tree"):
        told.clear()
        dockerfile.write_text(
            f"FROM debian:12\nRUN apt-get update\nRUN apt-get install -y {package} && {package} --version\n"
        )
        recipe = load_recipe("dockerfile", dockerfile, base=str(starter_image))
        options = BuildOptions(has_host_settings=True, is_forced=True)
        build_image(engine, places, recipe, tmp_path / "a.sif", options, on_progress=told.append)
    assert "RUN apt-get update" not in told
    assert any("install -y tree" in line for line in told)
