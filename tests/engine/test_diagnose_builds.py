"""The real engine, made to fail while it pulls and builds: what it prints must still be what the table expects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_apptainer import errors as e
from jupyter_apptainer.engine.locate import build_flags
from tests.engine.bench import Bench, check


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


def test_build_whose_script_fails(bench: Bench, small_image: Path) -> None:
    (bench.folder / "x.def").write_text(f"Bootstrap: localimage\nFrom: {small_image}\n%post\necho so much; exit 7\n")
    completed = bench.run("build", *build_flags(bench.engine), "x.sif", "x.def")
    error = check(completed, "build-section", e.BuildError, subject="x.def")
    assert any("so much" in line for line in error.log_tail)
