"""The probe of an image, with the real engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import jupyter_apptainer.images.probe as probe_module
from jupyter_apptainer.engine.command import Command
from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.options import Bind, ContainerOptions, build_exec
from jupyter_apptainer.engine.runner import Runner
from jupyter_apptainer.errors import ImageLacksPython, ImageNotFound, ProgramNotFound
from jupyter_apptainer.images.probe import PROBE_OPTIONS, ImageProbe, load_probe, probe_image
from jupyter_apptainer.places import Places

# The same for every user.
pytestmark = pytest.mark.user

SCRIPT = Path(probe_module.__file__).with_name("probe_script.py")
KERNEL = ("python", "-m", "ipykernel_launcher", "-f", "{connection_file}")

# A start of a kernel that notes each file that Python opens, then ends.
TRACED_START = """
import os, sys
output = os.dup(1)  # the kernel takes the original one
seen = []
def note(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        seen.append(arguments[0])
    elif event == "import" and arguments[1]:
        seen.append(arguments[1])
sys.addaudithook(note)
from ipykernel.kernelapp import IPKernelApp
app = IPKernelApp.instance()
app.initialize(["-f", "/tmp/c.json", "--ip", "/tmp/k", "--transport", "ipc"])
files = [f for f in seen if f.endswith((".pyc", ".so")) and os.path.isfile(f)]
os.write(output, ("\\nFILES " + "\\n".join(files)).encode())
os._exit(0)
"""


@pytest.fixture
def own_places(places: Places, tmp_path: Path) -> Places:
    return replace(places, cache=tmp_path / "cache")


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a shell and its libraries, and no Python."""
    root = tmp_path_factory.mktemp("sandbox")
    for folder in ("bin", "dev", "etc", "proc", "sys", "tmp", "var/tmp", "usr/bin", ".singularity.d"):
        (root / folder).mkdir(parents=True)
    shutil.copy(os.path.realpath("/bin/sh"), root / "bin/sh")
    listed = subprocess.run(["ldd", "/bin/sh"], capture_output=True, text=True, check=True).stdout
    for word in listed.split():
        if word.startswith("/"):
            (root / word[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(os.path.realpath(word), root / word[1:])
    return root


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that the engine was asked to run, each of them really run."""
    asked: list[str] = []
    complete = Runner.complete

    def note(self: Runner, command: Command[object], **options: object) -> object:
        asked.append(command.title)
        return complete(self, command, **options)  # type: ignore[arg-type]  # handed on as it came

    monkeypatch.setattr(Runner, "complete", note)
    return asked


def test_starter_image_has_all_a_kernel_needs(engine: EngineInfo, starter_image: Path, own_places: Places) -> None:
    found = probe_image(engine, str(starter_image), KERNEL, own_places, os.environ)
    assert found.python == found.program
    assert os.path.basename(found.program).startswith("python")
    assert found.python_version is not None
    assert found.python_version.startswith("3.")
    assert found.implementation == "CPython"
    assert found.ipykernel is not None
    assert found.jupyter_client is not None
    assert found.problem is None
    assert 0 < found.duration_s < 60
    assert found.has_debugger == bool(found.debugpy)


def test_start_files_are_those_that_a_start_opens(
    engine: EngineInfo, starter_image: Path, own_places: Places, tmp_path: Path
) -> None:
    found = probe_image(engine, str(starter_image), KERNEL, own_places, os.environ)
    assert len(set(found.start_files)) == len(found.start_files)
    assert all(path.startswith("/") for path in found.start_files)
    command = build_exec(
        engine,
        str(starter_image),
        ("python", "-c", TRACED_START),
        build_engine_environment(os.environ, {"PYTHONNOUSERSITE": "1", "IPYTHONDIR": "/tmp/i"}),
        options=PROBE_OPTIONS,
        cwd="/tmp",
        timeout_s=60,
    )
    opened = set(Runner().run(command).stdout.partition("FILES ")[2].splitlines())
    assert len(opened) > 100
    missed = opened - set(found.start_files)
    assert len(missed) <= len(opened) * 0.02, sorted(missed)


def test_second_probe_comes_from_the_disk(
    engine: EngineInfo, starter_image: Path, own_places: Places, runs: list[str]
) -> None:
    image = str(starter_image)
    assert load_probe(engine, image, KERNEL, own_places) is None
    first = probe_image(engine, image, KERNEL, own_places, os.environ)
    assert len(runs) == 1
    assert probe_image(engine, image, KERNEL, own_places, os.environ) == first
    assert load_probe(engine, image, KERNEL, own_places) == first
    assert len(runs) == 1
    probe_image(engine, image, KERNEL, own_places, os.environ, is_fresh=True)
    assert len(runs) == 2
    assert load_probe(engine, image, ("python3",), own_places) is None
    assert load_probe(replace(engine, version_text="0"), image, KERNEL, own_places) is None


def test_changed_image_is_asked_again(engine: EngineInfo, sandbox: Path, own_places: Places, runs: list[str]) -> None:
    for _ in range(2):
        probe_image(engine, str(sandbox), ("sh",), own_places, os.environ)
    assert len(runs) == 1
    os.utime(sandbox)
    probe_image(engine, str(sandbox), ("sh",), own_places, os.environ)
    assert len(runs) == 2


def test_damaged_cache_is_left_alone(engine: EngineInfo, sandbox: Path, own_places: Places) -> None:
    first = probe_image(engine, str(sandbox), ("sh",), own_places, os.environ)
    (file,) = own_places.probes.glob("image-*.json")
    for content in ("", "{", "[]", '{"key": 1}'):
        file.write_text(content)
        assert load_probe(engine, str(sandbox), ("sh",), own_places) is None
    again = probe_image(engine, str(sandbox), ("sh",), own_places, os.environ)
    assert replace(again, duration_s=0) == replace(first, duration_s=0)


@pytest.mark.parametrize("program", ["python2.7", "/opt/nowhere/python"])
def test_missing_python_is_named_with_those_that_exist(
    engine: EngineInfo, starter_image: Path, own_places: Places, program: str
) -> None:
    with pytest.raises(ImageLacksPython) as caught:
        probe_image(engine, str(starter_image), (program, "-m", "ipykernel"), own_places, os.environ)
    assert caught.value.message == f"there is no {program} in the image {starter_image}"
    assert caught.value.hint is not None
    assert "/python3" in caught.value.hint


def test_image_without_any_python(engine: EngineInfo, sandbox: Path, own_places: Places) -> None:
    with pytest.raises(ImageLacksPython) as caught:
        probe_image(engine, str(sandbox), KERNEL, own_places, os.environ)
    assert caught.value.hint is not None
    assert "use an image with Python" in caught.value.hint


def test_python_that_is_none(engine: EngineInfo, sandbox: Path, own_places: Places) -> None:
    fake = sandbox / "usr/bin/python9"
    fake.write_text("#!/bin/sh\nexit 0\n")
    fake.chmod(0o755)
    with pytest.raises(ImageLacksPython, match=r"python9 in the image .* is not a Python"):
        probe_image(engine, str(sandbox), ("python9",), own_places, os.environ)


def test_missing_ipykernel_is_no_error_but_visible(engine: EngineInfo, starter_image: Path, own_places: Places) -> None:
    # -I -S: without the packages of the image, as a bare Python would be.
    found = probe_image(engine, str(starter_image), ("python", "-I", "-S", *KERNEL[1:]), own_places, os.environ)
    assert found.ipykernel is None
    assert found.start_files == ()
    assert found.python_version is not None
    assert not found.has_debugger
    assert not found.has_curve


def test_other_programs_are_looked_for(engine: EngineInfo, sandbox: Path, own_places: Places) -> None:
    found = probe_image(engine, str(sandbox), ("sh", "{connection_file}"), own_places, os.environ)
    assert found.program.endswith("/sh")
    assert found.python is None
    with pytest.raises(ProgramNotFound, match="there is no R in the image"):
        probe_image(engine, str(sandbox), ("R", "{connection_file}"), own_places, os.environ)


def test_program_may_come_from_a_bind(engine: EngineInfo, sandbox: Path, own_places: Places, tmp_path: Path) -> None:
    program = tmp_path / "kernel"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    options = ContainerOptions(binds=(Bind(str(program), "/kernel"),), home="none", isolation="contain")
    found = probe_image(engine, str(sandbox), ("/kernel",), own_places, os.environ, options=options)
    assert found.program == "/kernel"


def test_missing_image_is_found_before_the_engine_runs(engine: EngineInfo, own_places: Places, runs: list[str]) -> None:
    with pytest.raises(ImageNotFound):
        probe_image(engine, "/no/such.sif", KERNEL, own_places, os.environ)
    assert runs == []


@pytest.mark.parametrize(
    ("ipykernel", "expected"),
    [(None, False), ("unknown", False), ("6.29.5", False), ("7.2.0", False), ("7.3.0", True), ("7.10.1a0", True)],
)
def test_encryption_needs_ipykernel_7_3(ipykernel: str | None, expected: bool) -> None:
    assert ImageProbe("python", ipykernel=ipykernel).has_curve is expected


@pytest.mark.parametrize(
    ("ipykernel", "debugpy", "expected"),
    [("6.0.0", "1.8", True), ("5.5.6", "1.8", False), ("7.4.0", None, False), (None, "1.8", False)],
)
def test_the_debugger_needs_debugpy_and_ipykernel_6(ipykernel: str | None, debugpy: str | None, expected: bool) -> None:
    assert ImageProbe("python", ipykernel=ipykernel, debugpy=debugpy).has_debugger is expected


def test_script_is_understood_by_old_and_new_pythons() -> None:
    """Every Python of this machine runs it, whichever they are; at least the one of the tests."""
    candidates = {sys.executable}
    for folder in os.environ["PATH"].split(os.pathsep):
        for name in ("python2", "python2.7", *(f"python3.{minor}" for minor in range(4, 20))):
            candidates |= {os.path.realpath(path) for path in [Path(folder, name)] if os.access(path, os.X_OK)}
    for program in sorted(candidates):
        done = subprocess.run([program, "-c", SCRIPT.read_text()], capture_output=True, text=True, check=False)
        if done.returncode == 127:
            # A stand-in for a Python that is not installed, as version managers put on PATH.
            continue
        assert done.returncode == 0, (program, done.stderr)
        found, _ = probe_module._parse_answer(done.stdout.rpartition(probe_module._MARKER)[2], 0.0)
        assert found.python_version is not None


def test_broken_ipykernel_is_reported_as_such(tmp_path: Path) -> None:
    package = tmp_path / "ipykernel"
    package.mkdir()
    (package / "__init__.py").write_text("import no_such_library\n")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.read_text()],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    found, _ = probe_module._parse_answer(done.stdout.rpartition(probe_module._MARKER)[2], 0.0)
    assert found.problem == "ModuleNotFoundError: No module named 'no_such_library'"
    assert found.ipykernel == "unknown"
