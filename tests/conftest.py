"""The world in which tests run: private folders, the real engine, a real image, and checks that nothing is left behind.

JPA_TEST_ENGINE (a program) and JPA_TEST_IMAGE (a SIF) replace the engine and the starter image of the user who runs the
tests; where neither exists, `jupyter apptainer quickstart` gets them, as it does for everybody.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sysconfig
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from jupyter_core.paths import jupyter_path

from jupyter_apptainer.engine.locate import EngineInfo, find_engine, get_engine
from jupyter_apptainer.images.starter import remove_build_folder
from jupyter_apptainer.places import Places, find_places
from tests import world

STARTER_KERNEL = "apptainer-starter"

pytest_plugins = (
    "tests.examples",
    "tests.gpu.world",
    "tests.integration.overlaid",
    "tests.laboratory",
    "tests.watchdog",
)

_HOST_ENVIRONMENT = dict(os.environ)
_HOST_KERNEL_FOLDERS = tuple(jupyter_path("kernels"))
TAG = int(os.environ.get("JPA_TEST_TAG") or world.new_tag())


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test counts as failed")
    parser.addoption("--long", action="store_true", help="also the tests that take minutes (marker `long`)")


def pytest_configure() -> None:
    world.set_tag(TAG)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that are for root, or for an ordinary user: they are not skipped, they are the other run's. Long ones are asked for."""
    lost = [item.nodeid for item in items if item.get_closest_marker("user") and item.get_closest_marker("root")]
    if lost:
        raise pytest.UsageError(f"marked for root and for an ordinary user, so nobody would run it: {', '.join(lost)}")
    other = "user" if os.geteuid() == 0 else "root"
    others = [item for item in items if item.get_closest_marker(other) or _is_too_long(item)]
    items[:] = [item for item in items if item not in others]
    if others:
        config.hook.pytest_deselected(items=others)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped and collector.config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which --no-skips forbids: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which --no-skips forbids: {report.longrepr}"
    if report.failed and call.when in ("setup", "call") and _is_integration(item):
        report.sections.append(("world", _describe_world()))
    return report


def _is_too_long(item: pytest.Item) -> bool:
    return item.get_closest_marker("long") is not None and not item.config.getoption("--long")


def _iter_ours() -> Iterator[world.Process]:
    return world.iter_tagged(TAG)


def _is_integration(item: pytest.Item) -> bool:
    if "browser" in item.path.parts:
        # Several tests share a server; what it leaves is seen at the end of the session.
        return False
    return "integration" in item.path.parts or "engine" in getattr(item, "fixturenames", ())


def _describe_world() -> str:
    engine = find_engine()
    dot_folder = engine.dot_folder if engine else ".apptainer"
    return world.describe(TAG, find_places().ledger, Path.home() / dot_folder / "instances/logs" / socket.gethostname())


@pytest.fixture(scope="session")
def session_dir() -> Iterator[Path]:
    """A private folder with a short name: the path of a socket has 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="jpat-", dir="/tmp"))
    yield path
    # Layers of builds have files of subordinate users.
    remove_build_folder(path)


@pytest.fixture(scope="session", autouse=True)
def places(session_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """Where the product's files lie during the tests; nothing of the user's own is read or written."""
    # Before TMPDIR is set: pytest's own temporary folders stay where they were.
    tmp_path_factory.getbasetemp()
    runtime, scratch = session_dir / "r", Path(tempfile.mkdtemp(prefix="jpat-", dir="/var/tmp"))
    runtime.mkdir(mode=0o700)
    found = find_engine(os.environ.get("JPA_TEST_ENGINE"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_APPTAINER_HOME", str(session_dir / "h"))
        patch.setenv("JUPYTER_DATA_DIR", str(session_dir / "d"))
        patch.setenv("JUPYTER_CONFIG_DIR", str(session_dir / "c"))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(session_dir / "j"))
        patch.setenv("IPYTHONDIR", str(session_dir / "i"))
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        patch.setenv("TMPDIR", str(scratch))
        patch.delenv("JUPYTER_PATH", raising=False)
        if found:
            patch.setenv("PATH", str(Path(found.path).parent), prepend=os.pathsep)
        yield find_places()
        left = world.list_files(runtime, scratch)
    shutil.rmtree(scratch)
    assert not _only_products_files(left), "files left behind by the tests"


def _only_products_files(paths: frozenset[Path]) -> list[Path]:
    """Leave out the folders that hold the product's files; they are empty, and stay.

    A test that plays root in a user namespace of its own has one of root's.
    """
    return sorted(path for path in paths if path.name not in ("jpa", "jpa-0", f"jpa-{os.getuid()}"))


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(places: Places) -> Iterator[None]:
    """At the end of the session no process that it started is alive."""
    yield
    left = world.find_leftovers(_iter_ours)
    assert not left, "processes left behind by the tests:\n" + "\n".join(map(str, left))


@pytest.fixture(autouse=True)
def leaves_no_trace(request: pytest.FixtureRequest, places: Places) -> Iterator[None]:
    """Each test gives back the environment variables; an integration test also ends its processes and removes its files."""
    variables = _load_variables()
    # Looking at all processes takes longer than most of the other tests.
    is_integration = _is_integration(request.node)
    processes = frozenset(_iter_ours()) if is_integration else frozenset()
    files = world.list_files(places.runtime, places.scratch) if is_integration else frozenset()
    yield
    assert _load_variables() == variables, "the test changed os.environ"
    if is_integration:
        left = world.find_leftovers(_iter_ours, processes)
        assert not left, "processes left behind:\n" + "\n".join(map(str, left))
        new = sorted(world.list_files(places.runtime, places.scratch) - files)
        assert not new, f"files left behind: {new}"


def _load_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def _run_quickstart() -> None:
    """Run the product's own set-up in the environment of the user, as `make test` does before the tests."""
    program = Path(sysconfig.get_path("scripts")) / "jupyter-apptainer"
    subprocess.run([program, "quickstart"], env=_HOST_ENVIRONMENT, stdin=subprocess.DEVNULL, check=True)


@pytest.fixture(scope="session")
def engine(places: Places) -> EngineInfo:
    """The real engine; it is first on PATH."""
    found = find_engine()
    if found is None:
        _run_quickstart()
        path = get_engine(environ=_HOST_ENVIRONMENT).path
        os.environ["PATH"] = str(Path(path).parent) + os.pathsep + os.environ["PATH"]
        found = get_engine()
    return found


@pytest.fixture(scope="session")
def starter_image(engine: EngineInfo) -> Path:
    """A real SIF with Python, ipykernel, numpy and matplotlib. Read only: copy it to damage it."""
    chosen = os.environ.get("JPA_TEST_IMAGE")
    if chosen:
        return Path(chosen)
    image = _find_starter_image()
    if image is None:
        _run_quickstart()
        image = _find_starter_image()
    assert image, f"`jupyter apptainer quickstart` made no kernelspec {STARTER_KERNEL} whose image exists"
    return image


def _find_starter_image() -> Path | None:
    for folder in _HOST_KERNEL_FOLDERS:
        try:
            content = json.loads((Path(folder) / STARTER_KERNEL / "kernel.json").read_text())
        except FileNotFoundError:
            continue
        image = Path(content["metadata"]["kernel_provisioner"]["config"]["image"])
        if image.exists():
            return image
    return None


@pytest.fixture(scope="session")
def starter_kernel(starter_image: Path) -> str:
    """The name of a kernelspec for the starter image, in the session's own Jupyter data folder."""
    program = Path(sysconfig.get_path("scripts")) / "jupyter-apptainer"
    subprocess.run(
        [program, "kernel", "add", STARTER_KERNEL, starter_image, "--user", "--replace"],
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=120,
    )
    return STARTER_KERNEL
