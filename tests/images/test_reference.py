"""Names of images elsewhere."""

from __future__ import annotations

import pytest

from jupyter_apptainer.errors import SpecError
from jupyter_apptainer.images.reference import parse_reference

DIGEST = "sha256:" + "5e" * 32


@pytest.mark.parametrize(
    ("text", "uri", "engine_uri", "file_name"),
    [
        ("docker://python", "docker://docker.io/library/python:latest", None, "python_latest.sif"),
        ("docker://lab/tools:1.0", "docker://docker.io/lab/tools:1.0", None, "tools_1.0.sif"),
        ("docker://index.docker.io/lab/tools:1", "docker://docker.io/lab/tools:1", None, "tools_1.sif"),
        ("docker://localhost/tools", "docker://localhost/tools:latest", None, "tools_latest.sif"),
        ("oras://ghcr.io/lab/a/tools:v1", "oras://ghcr.io/lab/a/tools:v1", None, "tools_v1.sif"),
        ("docker://[::1]:5000/tools:1", "docker://[::1]:5000/tools:1", None, "tools_1.sif"),
        (
            f"docker://h:5000/tools:1@{DIGEST}",
            f"docker://h:5000/tools:1@{DIGEST}",
            f"docker://h:5000/tools@{DIGEST}",
            "tools_1.sif",
        ),
        (f"oras://h:5000/tools@{DIGEST}", f"oras://h:5000/tools@{DIGEST}", None, "tools_5e5e5e5e5e5e.sif"),
        ("library://lab/tools:1", "library://lab/tools:1", None, "tools_1.sif"),
        ("https://example.org/a/lab.sif", "https://example.org/a/lab.sif", None, "lab.sif"),
        ("docker-archive:saved.tar.gz", "docker-archive:saved.tar.gz", None, "saved.sif"),
        ("oci-archive:///d/x.tar", "oci-archive:/d/x.tar", None, "x.sif"),
        ("./old.simg", "localimage:./old.simg", "./old.simg", "old.sif"),
    ],
)
def test_name_is_taken_apart(text: str, uri: str, engine_uri: str | None, file_name: str) -> None:
    reference = parse_reference(text)
    assert reference.uri == uri
    assert reference.engine_uri == (engine_uri or uri)
    assert reference.file_name == file_name


@pytest.mark.parametrize(
    "text",
    [
        "python",
        "docker:python",
        "docker://",
        "docker://Python",
        "docker://h/a b",
        "docker://h:5000/tools@sha256:12",
        "docker://h:5000/tools@",
        "docker://h/tools:ta/g",
        "docker:///etc/passwd",
        "docker://h.org/../x",
        "ftp://h/x",
        "library:x",
        "",
    ],
)
def test_wrong_name_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        parse_reference(text)


@pytest.mark.parametrize(
    ("wanted", "is_same"),
    [
        ("docker://lab/tools:1", True),
        (f"docker://lab/tools@{DIGEST}", True),
        (f"docker://lab/tools:9@{DIGEST}", True),
        ("docker://lab/tools", False),
        ("docker://lab/tools@sha256:" + "00" * 32, False),
        ("docker://other/tools:1", False),
        ("oras://docker.io/lab/tools:1", False),
    ],
)
def test_what_was_fetched_answers_to_its_tag_and_its_digest(wanted: str, is_same: bool) -> None:
    fetched = parse_reference(f"docker://lab/tools:1@{DIGEST}")
    assert parse_reference(wanted).is_same_image(fetched) is is_same
