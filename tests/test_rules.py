"""Patterns of policies: what they cover, and what only looks as if they did."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_apptainer.errors import PolicyError
from jupyter_apptainer.rules import check_image_patterns, match_name, match_path, match_uri

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("path", "pattern", "is_covered"),
    [
        pytest.param("/data", "/data", True, id="itself"),
        pytest.param("/data/a/b", "/data", True, id="below"),
        pytest.param("/data/a", "/data/", True, id="closing slash"),
        pytest.param("/database", "/data", False, id="longer name"),
        pytest.param("/", "/data", False, id="above"),
        pytest.param("/etc", "/", True, id="everything below the root"),
        pytest.param("/images/a.sif", "/images/*.sif", True, id="glob"),
        pytest.param("/images/x/a.sif", "/images/*.sif", False, id="a star is within one name"),
        pytest.param("/images/a.sif/x", "/images/*.sif", True, id="below what a glob covers"),
        pytest.param("/Data", "/data", False, id="case counts"),
        pytest.param("/home/ann/x", "~/x", True, id="home"),
        pytest.param("/home/ann/x", "~", True, id="home alone"),
        pytest.param("/home/annabel", "~", False, id="home of somebody else"),
        pytest.param("/scratch/ann/y", "/scratch/{username}", True, id="user name"),
        pytest.param("/scratch/bob/y", "/scratch/{username}", False, id="another user's"),
        pytest.param("/data", "data", False, id="relative pattern"),
        pytest.param("/anything", "*", True, id="anything"),
        pytest.param("/$HOME", "$HOME", False, id="variables mean nothing"),
    ],
)
def test_path(path: str, pattern: str, is_covered: bool) -> None:
    assert match_path(path, pattern, home="/home/ann", user="ann") == is_covered


def test_links_in_a_pattern_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real/sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    for pattern in ("link", "link/sub", "link/s*"):
        assert match_path(f"{tmp_path}/real/sub", f"{tmp_path}/{pattern}", home="/", user="u")


@pytest.mark.parametrize(
    ("uri", "prefix", "is_covered"),
    [
        pytest.param("docker://good.example/lab/x:1", "docker://good.example/lab", True, id="below"),
        pytest.param("docker://good.example/lab:1", "docker://good.example/lab", True, id="tag"),
        pytest.param(f"docker://good.example/lab@sha256:{DIGEST}", "docker://good.example/lab/", True, id="digest"),
        pytest.param(
            f"docker://good.example/lab/x:1@sha256:{DIGEST}", "docker://good.example", True, id="tag and digest"
        ),
        pytest.param("docker://good.example.evil/lab", "docker://good.example", False, id="longer host"),
        pytest.param("docker://good.example/lab-2/x", "docker://good.example/lab", False, id="longer name"),
        pytest.param("docker://good.example@evil.example/x", "docker://good.example", False, id="user name"),
        pytest.param("docker://good.example:80@evil.example/x", "docker://good.example", False, id="user and password"),
        pytest.param("docker://good.example:5000/x", "docker://good.example", False, id="another port"),
        pytest.param("docker://good.example/lab/../../x", "docker://good.example/lab", False, id="dots"),
        pytest.param("docker://good.example//evil", "docker://good.example", False, id="two slashes"),
        pytest.param("oras://good.example/lab/x", "docker://good.example/lab", False, id="another scheme"),
        pytest.param("docker://GOOD.example/lab/x", "docker://good.example/lab", False, id="case counts"),
        pytest.param("docker://good.example/lab/x?y", "docker://good.example/lab", False, id="question mark"),
        pytest.param("docker://good.example/lab/x\n", "docker://good.example/lab", False, id="line break"),
    ],
)
def test_uri(uri: str, prefix: str, is_covered: bool) -> None:
    assert match_uri(uri, prefix) == is_covered


@pytest.mark.parametrize(
    ("name", "pattern", "is_covered"),
    [
        ("OMP_NUM_THREADS", "OMP_NUM_THREADS", True),
        ("OMP_NUM_THREADS2", "OMP_NUM_THREADS", False),
        ("LAB_A", "LAB_*", True),
        ("LAB_*", "LAB_*", True),
        ("LAB_X_*", "LAB_*", True),
        ("L*", "LAB_*", False),
        ("LAB*", "LAB", False),
        ("path", "PATH", False),
        ("ANY", "*", True),
    ],
)
def test_name(name: str, pattern: str, is_covered: bool) -> None:
    assert match_name(name, pattern) == is_covered


@pytest.mark.parametrize(
    "pattern", ["*", "kernels", "/a/*.sif", "~/a", "docker://a/b", f"sha256:{DIGEST}", "signed:" + "a" * 40]
)
def test_image_pattern_is_understood(pattern: str) -> None:
    check_image_patterns([pattern], "this policy")


@pytest.mark.parametrize(
    "pattern",
    ["", "images/a.sif", "a.sif", "sha256:abc", f"sha256:{DIGEST.upper()}", "signed", "signed:abc", "http://x", "any"],
)
def test_image_pattern_that_could_never_match_is_refused(pattern: str) -> None:
    with pytest.raises(PolicyError, match="this policy"):
        check_image_patterns(["/fine", pattern], "this policy")
