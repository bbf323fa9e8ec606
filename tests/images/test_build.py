"""Builds by the real engine, from recipes of several languages, and what is left of those that do not succeed."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.errors import BuildError, RecipeInvalid
from jupyter_apptainer.images.build import BuildOptions, build_image, build_image_async
from jupyter_apptainer.images.build_log import BuildLog, find_phase
from jupyter_apptainer.images.recipes.recipe import Recipe, load_definition
from jupyter_apptainer.images.recipes.sources import load_recipe
from jupyter_apptainer.places import Places
from tests.images.conftest import Ask

LZ4 = 5

_DOCKERFILE = """\
FROM scratch AS files
COPY run.sh /bin/hello
FROM localimage:{image}
ARG VERSION
ENV VERSION=$VERSION PATH=/opt/tools/bin:$PATH
WORKDIR /place
RUN cd / && rm -rf /place && mkdir /place && echo old >/place/name; LOST=1
RUN test "$(pwd)" = /place && test -z "$LOST" && test "$(cat name)" = old && test "$VERSION" = 7
COPY tree .
COPY --from=files /bin /opt/tools/bin/
COPY --chmod=600 name ./private
RUN <<EOF
test "$(cat name)" = new
test "$(readlink link)" = name
test ! -e ignored.tmp
cat >template <<END
{{{{ name }}}}
%percent
END
EOF
RUN ["/bin/sh", "-c", "test $(stat -c %a private) = 600"]
ENTRYPOINT ["hello", "first"]
CMD ["second word"]
"""


def write_dockerfile(folder: Path, image: Path) -> Path:
    """Write a Dockerfile that uses most of what there is, and the files that it copies."""
    (folder / "tree").mkdir()
    (folder / "tree/name").write_text("new\n")
    (folder / "tree/link").symlink_to("name")
    (folder / "tree/ignored.tmp").touch()
    (folder / "name").write_text("secret\n")
    (folder / ".dockerignore").write_text("**/*.tmp\n")
    (folder / "run.sh").write_text('#!/bin/sh\nprintf "%s|" "$(pwd)" "$VERSION" "$@"\n')
    (folder / "run.sh").chmod(0o755)
    path = folder / "Dockerfile"
    path.write_text(_DOCKERFILE.format(image=image))
    return path


def write_wheel(path: Path, name: str) -> None:
    """Write the smallest package that pip installs."""
    path.mkdir()
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "VALUE = 42\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def list_scratch(places: Places) -> list[str]:
    return sorted(path.name for path in places.scratch.iterdir()) if places.scratch.is_dir() else []


def read_compression(image: Path) -> int:
    """Return the number of the compression in the SIF's file system: 20 bytes behind its magic."""
    data = image.read_bytes()
    start = data.index(b"hsqs")
    return int.from_bytes(data[start + 20 : start + 22], "little")


def test_dockerfile_becomes_the_image_that_docker_would_make(
    engine: EngineInfo, small_image: Path, places: Places, tmp_path: Path, ask: Ask
) -> None:
    recipe = load_recipe("dockerfile", write_dockerfile(tmp_path, small_image), build_args={"VERSION": "7"})
    told: list[str] = []
    built = build_image(engine, places, recipe, tmp_path / "out.sif", on_progress=told.append)
    assert ask(built.path, "/.singularity.d/runscript") == "/place|7|first|second word|"
    assert ask(built.path, "/.singularity.d/runscript", "x", "y z") == "/place|7|first|x|y z|"
    assert ask(built.path, "cat", "/place/template") == "{{ name }}\n%percent"
    assert ask(built.path, "sh", "-c", "ls -d /.copied 2>/dev/null; ls -A /place") == "link\nname\nprivate\ntemplate"
    # What was built from is kept, with the engine's arguments replaced.
    assert "Dockerfile line 8" in ask(built.path, "cat", "/.singularity.d/Singularity")
    assert read_compression(built.path) == LZ4
    assert built.size_bytes == built.path.stat().st_size
    assert told[0] == "Copying files"
    assert told[-1] == "Compressing"
    assert any(text.startswith("RUN cd / && rm -rf /place") for text in told)
    assert "Build complete" in built.log.read_text()
    assert stat.S_IMODE(built.log.stat().st_mode) == 0o600
    assert list_scratch(places) == []


@pytest.mark.user
@pytest.mark.slow
def test_requirements_are_installed_beside_what_the_base_has(
    engine: EngineInfo, starter_image: Path, places: Places, tmp_path: Path, ask: Ask
) -> None:
    """By the asynchronous function, with the settings of a host that has an index of its own."""
    write_wheel(tmp_path / "wheels", "near")
    write_wheel(tmp_path / "index", "far")
    (tmp_path / "more.txt").write_text("far==1.0\nnumpy\n")
    recipe_file = tmp_path / "requirements.txt"
    recipe_file.write_text("-r more.txt\n./wheels/near-1.0-py3-none-any.whl  # a file\n")
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PIP_")},
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": str(tmp_path / "index"),
        "PIP_NO_INDEX": "1",
        "https_proxy": "http://user:pa$$word@127.0.0.1:9",
    }
    recipe = load_recipe("requirements", recipe_file, base=str(starter_image), environ=environ)
    options = BuildOptions(has_host_settings=True)
    built = asyncio.run(build_image_async(engine, places, recipe, tmp_path / "out.sif", options, environ=environ))
    code = "import far, near, numpy, ipykernel; print(far.VALUE + near.VALUE)"
    assert ask(built.path, "python3", "-c", code) == "84"
    # Nothing of the host stays, least of all a password.
    kept = ask(
        built.path,
        "sh",
        "-c",
        "cat /.singularity.d/Singularity /.singularity.d/env/*; ls -A /mnt; ls -d /.copied || true",
    )
    assert "word@" not in kept
    assert str(tmp_path / "index") not in kept


@pytest.mark.parametrize("way", ["error", "cancelled", "interrupted"])
def test_build_that_does_not_end_well_leaves_nothing(
    way: str, engine: EngineInfo, small_image: Path, places: Places, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    definition = tmp_path / "recipe.def"
    last = "echo the reason >&2; exit 7" if way == "error" else "echo '== waiting'; sleep 1000"
    definition.write_text(f"Bootstrap: localimage\nFrom: {small_image}\n%post\n    touch /opt/x\n    {last}\n")
    match way:
        case "error":
            fail(engine, places, load_definition(definition), out / "a.sif")
        case "cancelled":
            asyncio.run(cancel(engine, places, load_definition(definition), out / "a.sif"))
        case _:
            interrupt(definition, out / "a.sif")
    assert list(out.iterdir()) == []
    assert list_scratch(places) == []


def fail(engine: EngineInfo, places: Places, recipe: Recipe, target: Path) -> None:
    with pytest.raises(BuildError) as caught:
        build_image(engine, places, recipe, target)
    assert str(recipe.source) in caught.value.message
    assert any("the reason" in line for line in caught.value.log_tail)
    log = Path(str(caught.value.hint).rpartition(" ")[2])
    assert "the reason" in log.read_text()


async def cancel(engine: EngineInfo, places: Places, recipe: Recipe, target: Path) -> None:
    loop, is_waiting = asyncio.get_running_loop(), asyncio.Event()

    def note(text: str) -> None:
        if text == "waiting":
            loop.call_soon_threadsafe(is_waiting.set)

    task = asyncio.create_task(build_image_async(engine, places, recipe, target, on_progress=note))
    waiting = asyncio.create_task(is_waiting.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def interrupt(definition: Path, target: Path) -> None:
    argv = [sys.executable, "-m", "jupyter_apptainer.cli.main", "image", "build", str(target), "--def", str(definition)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        for line in process.stderr:
            if line.strip() == "waiting":
                break
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        watchdog.cancel()
    assert process.returncode == 130


def test_second_way_is_taken_where_fakeroot_does_not_fit(
    engine: EngineInfo, starter_image: Path, places: Places, tmp_path: Path
) -> None:
    """Only an engine that fails in this way can show it; this one stands before the real one and fails once."""
    front = tmp_path / "apptainer"
    front.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        f'  *--ignore-fakeroot-command*) exec {engine.path} "$@" ;;\n'
        '  *) echo "/.singularity.d/libs/faked: /lib/libc.so.6: version \\`GLIBC_2.33\' not found (required by faked)" >&2\n'
        "     exit 255 ;;\n"
        "esac\n"
    )
    front.chmod(0o755)
    definition = tmp_path / "recipe.def"
    definition.write_text("Bootstrap: scratch\n\n%labels\n    made twice\n")
    told: list[str] = []
    broken = EngineInfo(**{**vars(engine), "path": str(front)})
    # The steps of a layered build need no fakeroot.
    options = BuildOptions(layers_bytes=0)
    built = build_image(
        broken, places, load_definition(definition), tmp_path / "a.sif", options, on_progress=told.append
    )
    assert built.path.is_file()
    assert told[0] == "The host's fakeroot does not fit into this image: trying again without it"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        pytest.param("missing/a.sif", "target-missing", id="no-folder"),
        pytest.param("there.sif", "target-exists", id="exists"),
        pytest.param(".", "target-folder", id="folder"),
    ],
)
def test_place_is_checked_before_the_build(
    name: str, code: str, engine: EngineInfo, places: Places, tmp_path: Path
) -> None:
    (tmp_path / "there.sif").write_text("old")
    definition = tmp_path / "recipe.def"
    definition.write_text("Bootstrap: scratch\n\n%labels\n    a b\n")
    recipe = load_definition(definition)
    with pytest.raises(RecipeInvalid, match="nothing was built"):
        build_image(engine, places, recipe, tmp_path / name)
    assert (tmp_path / "there.sif").read_text() == "old"
    if code == "target-exists":
        build_image(engine, places, recipe, tmp_path / name, BuildOptions(is_forced=True))
        assert (tmp_path / "there.sif").stat().st_size > 1000


@pytest.mark.parametrize(
    ("line", "phase"),
    [
        pytest.param("INFO:    Running post scriptlet", "Running %post", id="script"),
        pytest.param("INFO:    Fetching OCI image...", "Fetching the base image", id="registry"),
        pytest.param("INFO:    Creating SIF file...", "Compressing", id="end"),
        pytest.param("I: Retrieving InRelease", "Making a system of the mirror's packages", id="debootstrap"),
        pytest.param("== Training a model", "Training a model", id="own"),
        pytest.param("Copying a to b", "", id="output-of-a-program"),
        pytest.param("WARNING: Running post scriptlet", "", id="warning"),
    ],
)
def test_phase_is_read_from_the_output(line: str, phase: str) -> None:
    assert find_phase(line) == phase


def test_pieces_of_output_become_whole_lines(tmp_path: Path) -> None:
    told: list[str] = []
    log = BuildLog(tmp_path / "builds", "a", told.append)
    tmp_path.chmod(0o700)
    log.open()
    for piece in ("== fi", "rst\nplain\n== sec", "ond"):
        log.feed("stdout", piece)
        log.feed("stderr", "")
    log.close()
    assert told == ["first", "second"]
    assert log.path.read_text() == "== first\nplain\n== second\n"


def test_command_prints_the_definition_and_what_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text("FROM debian:12\nEXPOSE 80\nRUN true\n")
    answer = run_command("image", "build", "unused.sif", "--dockerfile", path, "--print")
    assert answer.returncode == 0
    assert answer.stdout.startswith("Bootstrap: docker\nFrom: debian:12\n")
    assert answer.stderr == f"{path}:2: note: EXPOSE 80: a container shares the host's network\n"
    definition = tmp_path / "taken-over.def"
    definition.write_text(answer.stdout)
    assert not load_definition(definition).findings


def test_command_names_mistakes_and_builds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.def"
    path.write_text("Bootstrap: docker\nFrom: debian:12\n%pots\n    true\n")
    answer = run_command("image", "build", tmp_path / "a.sif", "--def", path)
    assert answer.returncode == 2
    assert answer.stderr == f"error: nothing was built: {path}:3: error: unknown section %pots (did you mean %post?)\n"


def run_command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "jupyter_apptainer.cli.main", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
