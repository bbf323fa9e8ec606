"""What is read from apt's configuration, and what of it is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_apptainer.engine.apt import (
    Mirror,
    build_apt_configuration,
    build_sources,
    choose_mirror,
    find_http_uri,
    parse_candidate,
    parse_packages,
)
from jupyter_apptainer.engine.linking import parse_needed
from jupyter_apptainer.engine.step import StepError
from jupyter_apptainer.engine.unpack import relocate_fakeroot


def build_listing(*sources: tuple[str, str]) -> str:
    return "".join(f"'{uri}/dists/{suite}/InRelease' name_InRelease 0 \n" for uri, suite in sources)


@pytest.mark.parametrize(
    ("sources", "codename", "distribution", "expected"),
    [
        (
            [
                ("http://a/debian-security", "bookworm-security"),
                ("http://a/debian", "bookworm"),
                ("http://a/debian", "bookworm-updates"),
            ],
            "bookworm",
            "debian",
            ("http://a/debian", "bookworm"),
        ),
        (
            [
                ("https://vendor/linux/debian", "bookworm"),
                ("http://a/debian", "bookworm"),
                ("http://a/debian", "bookworm-updates"),
            ],
            "bookworm",
            "debian",
            ("http://a/debian", "bookworm"),
        ),
        ([("http://a/debian", "sid")], "trixie", "debian", ("http://a/debian", "sid")),
        (
            [("http://a/archive/debian/20250101T000000Z", "bookworm")],
            "bookworm",
            "debian",
            ("http://a/archive/debian/20250101T000000Z", "bookworm"),
        ),
        (
            [("mirror+file:/etc/apt/mirrors/debian.list", "bookworm")],
            "bookworm",
            "debian",
            ("mirror+file:/etc/apt/mirrors/debian.list", "bookworm"),
        ),
        ([("http://p/ubuntu-ports", "noble")], "noble", "ubuntu", ("http://p/ubuntu-ports", "noble")),
    ],
    ids=["security", "vendor", "sid", "snapshot", "mirror-list", "ports"],
)
def test_mirror_of_the_distribution_is_told_from_others(
    sources: list[tuple[str, str]], codename: str, distribution: str, expected: tuple[str, str]
) -> None:
    found = choose_mirror(build_listing(*sources), codename, distribution)
    assert (found.uri, found.suite) == expected


def test_host_without_a_mirror_is_refused() -> None:
    with pytest.raises(StepError, match="no mirror of debian"):
        choose_mirror(build_listing(("https://vendor/repo", "stable")), "bookworm", "debian")


def test_mirror_list_is_read_for_programs_that_know_only_addresses(tmp_path: Path) -> None:
    listed = tmp_path / "debian.list"
    listed.write_text("https://a/debian/\nhttps://b/debian\n")
    assert find_http_uri(Mirror(f"mirror+file:{listed}", "bookworm", "debian")) == "https://a/debian"


def test_configuration_keeps_the_way_to_the_mirror_and_drops_hooks_and_pins(tmp_path: Path) -> None:
    host = (
        'APT::Architecture "amd64";\n'
        'APT::Architectures:: "amd64";\n'
        'APT::Update::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb";\n'
        'Acquire::http::Proxy "http://proxy:3128";\n'
        'Acquire::AllowInsecureRepositories "1";\n'
        'Acquire::IndexTargets::deb::DEP-11::MetaKey "x";\n'
        'Dir::State::lists "lists/";\n'
    )
    text = build_apt_configuration(host, tmp_path)
    assert 'Acquire::http::Proxy "http://proxy:3128";' in text
    assert 'APT::Architectures:: "amd64";' in text
    assert "Post-Invoke" not in text
    assert "DEP-11" not in text
    assert 'Acquire::AllowInsecureRepositories "false";' in text
    assert 'AllowInsecureRepositories "1"' not in text
    assert f'Dir::State::lists "{tmp_path}/lists";' in text


def test_each_suite_is_listed_once() -> None:
    text = build_sources(Mirror("http://a/debian", "sid", "debian"), ("sid", "sid"))
    assert text.count("http://a/debian sid main") == 1


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("apptainer:\n  Installed: (none)\n  Candidate: 1.4.5-2\n", "1.4.5-2"),
        ("apptainer:\n  Installed: (none)\n  Candidate: (none)\n", None),
        ("", None),
    ],
    ids=["offered", "virtual", "unknown"],
)
def test_candidate_is_read(policy: str, expected: str | None) -> None:
    assert parse_candidate(policy) == expected


def test_packages_are_read_with_their_section() -> None:
    records = "Package: libc6\nVersion: 2.43-7\nSection: universe/libs\nSize: 10\nDescription: a\n b: c\n\nPackage: x\nVersion: 1\n"
    first, second = parse_packages(records)
    assert (first.name, first.version, first.section, first.size) == ("libc6", "2.43-7", "libs", 10)
    assert (second.section, second.size) == ("", 0)


def test_library_of_the_host_is_not_accepted_for_an_unpacked_program() -> None:
    listing = (
        "\tlinux-vdso.so.1 (0x1)\n\tlibz.so.1 => /unpacked/libz.so.1 (0x2)\n\tlibx.so.2 => /usr/lib/libx.so.2 (0x3)\n"
    )
    with pytest.raises(StepError, match=r"needs libx\.so\.2"):
        parse_needed(listing, "prog", [Path("/unpacked")])
    assert parse_needed(listing.rpartition("\tlibx")[0], "prog", [Path("/unpacked")]) == {
        "libz.so.1": Path("/unpacked/libz.so.1")
    }


def test_fakeroot_finds_our_copies_where_the_path_has_spaces() -> None:
    text = relocate_fakeroot("FAKEROOT_PREFIX=/usr\nPATHS=/usr/lib\nFAKED=${X}/faked\n", Path("/a b"))
    assert "FAKEROOT_PREFIX=/usr\n" in text
    assert "PATHS='/a b/lib/libfakeroot'\n" in text
    assert "FAKED='" in text
