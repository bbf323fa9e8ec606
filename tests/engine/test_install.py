"""Getting an engine: the real mirror, real packages, a real engine that has to work with nothing else of the host's."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from jupyter_apptainer.engine.distribution import parse_package_version
from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.install import install_engine, install_into_prefix
from jupyter_apptainer.engine.locate import EngineInfo, build_flags, load_engine_info, run_flags
from jupyter_apptainer.engine.step import find_program
from jupyter_apptainer.errors import EngineInstallError
from jupyter_apptainer.places import Places

# The same for root, whose run of the tests begins with such an install.
pytestmark = pytest.mark.user

# What the engine may take from any host. Everything else has to come with it.
HOST_PROGRAMS = ("cp", "dd", "rm", "sh", "true", "truncate", "mount", "mknod", "newuidmap", "newgidmap")
INSTALL = (sys.executable, "-m", "jupyter_apptainer.cli.main", "engine", "install", "--method", "unpacked")


def make_places(folder: Path) -> Places:
    return Places(
        data=folder / "data",
        cache=folder / "cache",
        runtime=folder / "runtime",
        scratch=folder / "scratch",
        hostname="here",
    )


def list_host() -> dict[str, int]:
    """Return what apt keeps on the host, with the time of each last change."""
    roots = (Path("/etc/apt"), Path("/var/lib/apt"), Path("/var/cache/apt"), Path("/var/lib/dpkg"))
    found = (Path(folder) / name for root in roots for folder, _, names in os.walk(root) for name in names)
    return {str(path): path.lstat().st_mtime_ns for path in found}


@pytest.fixture(scope="module")
def own_places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    return make_places(tmp_path_factory.mktemp("install"))


@pytest.fixture(scope="module")
def host_changes() -> list[str]:
    """Filled by `unpacked`: what the install changed on the host."""
    return []


@pytest.fixture(scope="module")
def unpacked(own_places: Places, host_changes: list[str]) -> EngineInfo:
    if not find_program("apt-get"):
        pytest.skip("packages can only be unpacked where there is apt")
    before = list_host()
    info = install_engine(own_places, method="unpacked")
    after = list_host()
    host_changes += [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
    return info


@pytest.fixture(scope="module")
def bare_env(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """An environment whose PATH has what every host has, and no helper of the engine."""
    folder = tmp_path_factory.mktemp("bin")
    for name in HOST_PROGRAMS:
        path = find_program(name)
        if path:
            (folder / name).symlink_to(path)
    return build_engine_environment({"PATH": str(folder), "HOME": str(tmp_path_factory.mktemp("home"))})


def run(engine: EngineInfo, env: Mapping[str, str], *words: str | Path, **options: object) -> str:
    """Run the engine and return its output; a failure shows all of it."""
    argv = (engine.path, *map(str, words))
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=250, check=False, **options)  # type: ignore[call-overload]  # options of subprocess
    assert done.returncode == 0, f"{shlex.join(argv)}\n{done.stdout}{done.stderr}"
    return str(done.stdout)


def test_unpacked_engine_is_found_in_our_own_folder(unpacked: EngineInfo, own_places: Places) -> None:
    assert unpacked.origin == "own prefix"
    assert unpacked.path == str(own_places.engine_prefix / "bin" / "apptainer")
    assert not unpacked.is_too_old


def test_install_changes_nothing_of_the_hosts_package_manager(unpacked: EngineInfo, host_changes: list[str]) -> None:
    assert host_changes == []


def test_install_leaves_no_scratch_files(unpacked: EngineInfo, own_places: Places) -> None:
    names = sorted(path.name.partition("-")[0] for path in (own_places.data / "engines").iterdir())
    assert names == [".lock", "unpacked"]


def test_present_engine_is_kept(unpacked: EngineInfo, own_places: Places) -> None:
    told: list[str] = []
    again = install_engine(own_places, environ={"PATH": "/nowhere"}, on_progress=told.append)
    assert again == unpacked
    assert told == []


def test_unpacked_engine_runs_an_image(unpacked: EngineInfo, starter_image: Path, bare_env: Mapping[str, str]) -> None:
    out = run(unpacked, bare_env, "exec", *run_flags(unpacked), starter_image, "cat", "/etc/debian_version")
    assert out.strip()


def test_unpacked_engine_writes_to_an_overlay(
    unpacked: EngineInfo, starter_image: Path, bare_env: Mapping[str, str], tmp_path: Path
) -> None:
    overlay = tmp_path / "overlay.img"
    run(unpacked, bare_env, "overlay", "create", "--sparse", "--create-dir", "/data", overlay)
    flags = (*run_flags(unpacked), "--overlay", str(overlay))
    run(unpacked, bare_env, "exec", *flags, starter_image, "sh", "-c", "echo kept >/data/file")
    assert run(unpacked, bare_env, "exec", *flags, starter_image, "cat", "/data/file") == "kept\n"


def test_unpacked_engine_writes_to_an_overlay_inside_an_image(
    unpacked: EngineInfo, starter_image: Path, bare_env: Mapping[str, str], tmp_path: Path
) -> None:
    image = tmp_path / "image.sif"
    shutil.copyfile(starter_image, image)
    run(unpacked, bare_env, "overlay", "create", "--create-dir", "/data", image)
    flags = run_flags(unpacked)
    run(unpacked, bare_env, "exec", *flags, "--writable", image, "sh", "-c", "echo kept >/data/file")
    assert run(unpacked, bare_env, "exec", *flags, image, "cat", "/data/file") == "kept\n"


def test_unpacked_engine_builds_an_image_from_an_image(
    unpacked: EngineInfo, starter_image: Path, bare_env: Mapping[str, str], tmp_path: Path
) -> None:
    definition = tmp_path / "small.def"
    definition.write_text(f"Bootstrap: localimage\nFrom: {starter_image}\n%post\n  id -u >/opt/built-by\n")
    image = tmp_path / "small.sif"
    run(unpacked, bare_env, "build", *build_flags(unpacked), "--mksquashfs-args", "-comp lz4", image, definition)
    assert run(unpacked, bare_env, "exec", *run_flags(unpacked), image, "cat", "/opt/built-by") == "0\n"


@pytest.mark.parametrize("name", ["e2fsck", "resize2fs", "dumpe2fs", "debugfs", "mke2fs"])
def test_unpacked_engine_brings_the_tools_for_overlays(unpacked: EngineInfo, name: str) -> None:
    program = Path(unpacked.libexec) / "apptainer" / "bin" / name
    done = subprocess.run((program, "-V"), capture_output=True, text=True, timeout=20, check=False)
    assert "1.4" in done.stderr, done


class Interrupted(BaseException):
    """What a signal would raise in the middle of an install."""


@pytest.mark.parametrize(
    "error", [Interrupted(), OSError(28, "No space left on device")], ids=["interrupt", "disk-full"]
)
def test_failed_install_keeps_the_old_engine(unpacked: EngineInfo, own_places: Places, error: BaseException) -> None:
    before = sorted((own_places.data / "engines").iterdir())

    def fail(prefix: Path, scratch: Path) -> None:
        (prefix / "bin").mkdir()
        (scratch / "package.deb").write_bytes(b"half")
        raise error

    with pytest.raises(type(error)):
        install_into_prefix(own_places, "unpacked", fail, os.environ)
    assert sorted((own_places.data / "engines").iterdir()) == before
    assert load_engine_info(unpacked.path, "own prefix", own_places, os.environ) == unpacked


def test_engine_that_does_not_start_is_not_taken(unpacked: EngineInfo, own_places: Places) -> None:
    def make_broken(prefix: Path, _: Path) -> None:
        (prefix / "bin").mkdir()
        (prefix / "bin" / "apptainer").write_text("#!/bin/sh\necho 'FATAL:   broken' >&2\nexit 255\n")
        (prefix / "bin" / "apptainer").chmod(0o755)

    with pytest.raises(Exception, match="does not work"):
        install_into_prefix(own_places, "unpacked", make_broken, os.environ)
    assert load_engine_info(unpacked.path, "own prefix", own_places, os.environ) == unpacked


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_install_ended_by_a_signal_keeps_the_old_engine(
    unpacked: EngineInfo, own_places: Places, tmp_path: Path, signum: signal.Signals
) -> None:
    env = os.environ | {"JUPYTER_APPTAINER_HOME": str(own_places.data), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(INSTALL, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr
        assert any(line.startswith("Reading the package lists") for line in process.stderr)
        process.send_signal(signum)
        process.wait(timeout=30)
    assert process.returncode == (130 if signum == signal.SIGINT else -signal.SIGKILL)
    assert load_engine_info(unpacked.path, "own prefix", own_places, os.environ) == unpacked
    if signum == signal.SIGINT:
        kinds = [path.name.partition("-")[0] for path in (own_places.data / "engines").iterdir()]
        assert "scratch" not in kinds


def test_next_install_removes_what_a_killed_one_left(unpacked: EngineInfo, tmp_path: Path) -> None:
    places = make_places(tmp_path)
    left = places.data / "engines" / "unpacked-left"
    left.mkdir(parents=True, mode=0o700)
    (places.data / "engines").chmod(0o700)
    real = Path(unpacked.path).resolve()

    def link(prefix: Path, _: Path) -> None:
        (prefix / "bin").mkdir()
        (prefix / "bin" / "apptainer").symlink_to(real)

    first = install_into_prefix(places, "first", link, os.environ)
    assert not left.exists()
    assert first.path == str(places.engine_prefix / "bin" / "apptainer")
    old = places.engine_prefix.resolve()
    install_into_prefix(places, "second", link, os.environ)
    # Something may still run from the one that was replaced.
    assert old.exists()
    install_into_prefix(places, "third", link, os.environ)
    assert not old.exists()
    assert places.engine_prefix.resolve().name.startswith("third-")


def test_unreachable_mirror_is_named_as_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(EngineInstallError, match="unpacked: could not fetch the package lists") as caught:
        install_engine(make_places(tmp_path), method="unpacked")
    assert caught.value.log_tail


@pytest.mark.parametrize(
    ("text", "version"),
    [("1.4.5-2", (1, 4, 5)), ("1:1.3", (1, 3, 0)), ("1.4.0~rc1+ds-1", (1, 4, 0)), ("nonsense", (0, 0, 0))],
)
def test_package_versions_are_compared_by_the_engines_own_numbers(text: str, version: tuple[int, int, int]) -> None:
    assert parse_package_version(text) == version
