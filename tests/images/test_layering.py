"""Layered builds by the real engine: the same image as a plain build gives, and only what has changed is run."""

from __future__ import annotations

import filecmp
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from jupyter_apptainer.engine.companions import run_companion
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.errors import BuildError
from jupyter_apptainer.images.build import BuildOptions, BuiltImage, build_image
from jupyter_apptainer.images.cleaning import clean_images
from jupyter_apptainer.images.layering.store import About, Held, Layer, Store
from jupyter_apptainer.images.recipes.recipe import load_definition
from jupyter_apptainer.images.recipes.sources import load_recipe
from jupyter_apptainer.images.sif import read_json, read_sif, read_text
from jupyter_apptainer.places import Places
from tests.images.conftest import Ask

EPOCH = 1700000000
# What overlays do in ways of their own: files with several names, deleted and replaced folders, owners, modes.
_DEFINITION = """\
# Above the header, which the engine drops.
Bootstrap: localimage
From: {image}

%arguments
    WHO=somebody
%files
    first.txt /opt/first/
    late /opt/late
%post
    mkdir -p /opt/tree/inner /opt/gone
    echo one >/opt/a; ln /opt/a /opt/b; ln /opt/a /opt/tree/c
    echo x >/opt/tree/inner/x; echo y >/opt/gone/y; touch /opt/kept
    chown 1234:56 /opt/kept; chmod 6755 /opt/kept; ln -s kept /opt/link
    NAME="two  words"; cd /opt; umask 027
    # layer
    echo "$NAME" >name; touch masked; umask 0002
    rm -rf gone tree/inner; mkdir tree/inner; echo z >tree/inner/z
    chmod 700 kept; chown 0:0 link
    echo "export FROM_POST=1" >>$APPTAINER_ENVIRONMENT; echo "from-post yes" >>$APPTAINER_LABELS
    # layer: /opt/late
    cat late/file >copied; chmod 600 b; echo more >>tree/c
    # layer
    mv tree moved; rm a
%environment
    export WHO={{{{ WHO }}}}
%runscript
    echo "hello $WHO"
%labels
    who {{{{ WHO }}}}
%help
    Of layers.
%test
    test -e /opt/copied
%appfiles one
    first.txt
    late data
%appinstall one
    cat first.txt "$SCIF_APPROOT/data/file" >bin/installed; pwd >/opt/where
%appenv one
    ONE=1
%apprun one
    echo "one {{{{ WHO }}}}"
%appinstall two
    echo "$SCIF_APPNAME $NAME" >lib/name; cat /scif/apps/one/bin/installed >>lib/name
%apphelp two
    Of two.
%applabels two
    kind second
"""


@pytest.fixture
def recipe_file(small_image: Path, tmp_path: Path) -> Path:
    (tmp_path / "first.txt").write_text("first\n")
    (tmp_path / "late").mkdir()
    (tmp_path / "late/file").write_text("late\n")
    path = tmp_path / "recipe.def"
    path.write_text(_DEFINITION.format(image=small_image))
    return path


def build(
    engine: EngineInfo, places: Places, definition: Path, name: str, *, told: list[str] | None = None, **options: Any
) -> BuiltImage:
    recipe = load_definition(definition, folder=definition.parent)
    note = (lambda _: None) if told is None else told.append
    chosen = BuildOptions(is_forced=True, **options)
    return build_image(engine, places, recipe, definition.with_name(name), chosen, on_progress=note)


def compare_files(one: Path, other: Path) -> bool:
    return filecmp.cmp(one, other, shallow=False)


def unpack(engine: EngineInfo, image: Path, folder: Path) -> dict[str, tuple[object, ...]]:
    """Return all of an image but times: kind and mode, owners, content, and which other names a file has."""
    partition = read_sif(str(image)).system_partition
    assert partition is not None
    argv = ("unsquashfs", "-no-progress", "-offset", str(partition.offset))
    listing = run_companion(engine, (*argv, "-lln", str(image)), "list an image").stdout
    owners = {
        line.split("squashfs-root", 1)[1].split(" -> ")[0]: line.split()[:2]
        for line in listing.splitlines()
        if "squashfs-root" in line
    }
    run_companion(engine, (*argv, "-quiet", "-no-xattrs", "-dest", str(folder), str(image)), "unpack", ok_codes=(0, 2))
    names: dict[int, list[str]] = {}
    for path in iter_tree(folder):
        names.setdefault(path.lstat().st_ino, []).append(str(path.relative_to(folder)))
    found: dict[str, tuple[object, ...]] = {}
    for path in iter_tree(folder):
        status, name = path.lstat(), str(path.relative_to(folder))
        content = (
            os.readlink(path) if path.is_symlink() else sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        )
        shown = f"/{name}" if name != "." else ""
        found[name] = (*owners[shown], content, tuple(names[status.st_ino]) if stat.S_ISREG(status.st_mode) else ())
    return found


def iter_tree(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        for name in sorted([*folders, *files]):
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o700 if path.is_dir() else path.stat().st_mode | 0o400)
            yield path


def read_texts(image: Path) -> dict[str, Any]:
    """Return what the image says about itself, without the time at which it was made."""
    sif = read_sif(str(image))
    document = read_json(sif, sif.find("json")[0])
    document["data"]["attributes"]["labels"].pop("org.label-schema.build-date")
    return {"definition": read_text(sif, sif.find("definition")[0]), "inspect": document}


def test_image_is_that_of_a_plain_build(engine: EngineInfo, places: Places, recipe_file: Path, tmp_path: Path) -> None:
    """With parts of a script that write to a file of several names below, and rename a folder of a layer below."""
    # A plain build has all files at the beginning, and no place where it differs.
    plain = build(engine, places, recipe_file, "plain.sif", layers_bytes=0)
    told: list[str] = []
    layered = build(engine, places, recipe_file, "layered.sif", told=told)
    again = build(engine, places, recipe_file, "again.sif")
    assert "unchanged" not in plain.log.read_text()
    assert again.log.read_text().count("is unchanged") == 10
    expected = unpack(engine, plain.path, tmp_path / "plain")
    expected.pop(".singularity.d/labels.json")
    for image in (layered.path, again.path):
        found = unpack(engine, image, tmp_path / image.stem)
        found.pop(".singularity.d/labels.json")
        assert found == expected
        assert read_texts(image) == read_texts(plain.path)
    assert "Running %setup" not in told
    assert told[-2:] == ["Running %test", "Compressing"]
    # With its times fixed it is the same file, whichever way it was built.
    fixed = [build(engine, places, recipe_file, f"{size}.sif", epoch=EPOCH, layers_bytes=size) for size in (0, 1 << 30)]
    assert compare_files(*(each.path for each in fixed))


@pytest.mark.user  # the same for root, and slow
def test_only_what_has_changed_is_run(
    engine: EngineInfo, places: Places, small_image: Path, tmp_path: Path, ask: Ask
) -> None:
    definition, data = tmp_path / "steps.def", tmp_path / "data.txt"
    data.write_text("old\n")
    text = (
        f"Bootstrap: localimage\nFrom: {small_image}\n%arguments\n    SECOND=2\n%files\n    data.txt /opt/data/\n"
        "%post\n    echo '== first'\n    # layer\n    echo '== second'\n    echo {{ SECOND }} >/opt/second\n"
        "    # layer: /opt/data\n    echo '== third'\n    cat /opt/data/data.txt >/opt/third\n%labels\n    a b\n"
    )
    definition.write_text(text)

    def run(**options: Any) -> list[str]:
        told: list[str] = []
        build(engine, places, definition, "steps.sif", told=told, **options)
        return [word for word in told if word in ("first", "second", "third", "Copying files")]

    assert run() == ["first", "second", "Copying files", "third"]
    assert run() == []
    definition.write_text(text.replace("a b", "a c") + "%environment\n    export A=1\n")
    assert run() == []
    data.write_text("new\n")
    assert run() == ["Copying files", "third"]
    assert ask(tmp_path / "steps.sif", "cat", "/opt/third") == "new"
    data.chmod(0o700)
    assert run() == ["Copying files", "third"]
    assert ask(tmp_path / "steps.sif", "stat", "-c", "%a", "/opt/data/data.txt") == "700"
    definition.write_text(text.replace("SECOND=2", "SECOND=3"))
    assert run() == ["second", "Copying files", "third"]
    assert ask(tmp_path / "steps.sif", "cat", "/opt/second") == "3"
    definition.write_text(text)
    data.write_text("old\n")
    data.chmod(0o644)
    assert run(uses_layers=False) == ["first", "second", "Copying files", "third"]
    assert run() == []


@pytest.mark.user
def test_app_is_installed_again_when_it_or_what_stands_before_has_changed(
    engine: EngineInfo, places: Places, small_image: Path, tmp_path: Path, ask: Ask
) -> None:
    definition, data = tmp_path / "apps.def", tmp_path / "data.txt"
    data.write_text("old\n")
    text = (
        f"Bootstrap: localimage\nFrom: {small_image}\n%post\n    echo '== post'; WORD=said\n%appinstall one\n    echo '== one'\n"
        "    echo $WORD >bin/word\n%appinstall two\n    echo '== two'\n    cat ../one/bin/word data.txt >lib/both\n"
        "%appfiles two\n    data.txt\n%apprun one\n    true\n"
    )
    definition.write_text(text)

    def run() -> list[str]:
        told: list[str] = []
        build(engine, places, definition, "apps.sif", told=told)
        return [word for word in told if word in ("post", "one", "two")]

    assert run() == ["post", "one", "two"]
    assert run() == []
    assert ask(tmp_path / "apps.sif", "cat", "/scif/apps/two/lib/both") == "said\nold"
    definition.write_text(text.replace("cat ../one", "cat  ../one"))
    assert run() == ["two"]
    # Their folders and files are there before %post.
    data.write_text("new\n")
    assert run() == ["post", "one", "two"]
    assert ask(tmp_path / "apps.sif", "cat", "/scif/apps/two/lib/both") == "said\nnew"
    # A function of %post reaches the apps, as with the engine, so that all of it is one step.
    definition.write_text(text.replace("WORD=said", "say() { echo heard; }").replace("echo $WORD", "say"))
    assert run() == ["post", "one", "two"]
    assert ask(tmp_path / "apps.sif", "cat", "/scif/apps/one/bin/word") == "heard"


@pytest.mark.user
def test_steps_of_a_dockerfile_are_layers(
    engine: EngineInfo, places: Places, small_image: Path, tmp_path: Path, ask: Ask
) -> None:
    """A file that is copied late does not change the steps before; a variable counts for those behind it."""
    (tmp_path / "late.txt").write_text("1\n")
    path = tmp_path / "Dockerfile"
    lines = [f"FROM localimage:{small_image}", "ENV A=1", "RUN echo $A >/opt/a", "WORKDIR /opt/work"]
    lines += ["COPY late.txt ./", "ENV B=1", "RUN cat late.txt >/opt/late; echo $B >/opt/b"]
    path.write_text("\n".join(lines) + "\n")

    def run() -> list[str]:
        told: list[str] = []
        build_image(
            engine,
            places,
            load_recipe("dockerfile", path),
            tmp_path / "out.sif",
            BuildOptions(is_forced=True),
            on_progress=told.append,
        )
        return [word.split()[1] for word in told if word.startswith("RUN")]

    assert run() == ["echo", "cat"]
    (tmp_path / "late.txt").write_text("2\n")
    assert run() == ["cat"]
    path.write_text(path.read_text().replace("ENV B=1", "ENV B=2"))
    assert run() == ["cat"]
    assert ask(tmp_path / "out.sif", "cat", "/opt/a", "/opt/late", "/opt/b") == "1\n2\n2"
    assert ask(tmp_path / "out.sif", "sh", "-c", "ls -d /.copied /.post* 2>/dev/null || echo none") == "none"


@pytest.mark.user
def test_file_of_several_names_that_is_replaced_needs_no_copy(
    engine: EngineInfo, places: Places, small_image: Path, tmp_path: Path, ask: Ask
) -> None:
    """As a package that is upgraded does it. One that is written to by one of its names does need it."""
    definition = tmp_path / "names.def"
    text = f"Bootstrap: localimage\nFrom: {small_image}\n%post\n    cd /opt; echo old >a; ln a b; echo kept >c; ln c d\n    # layer\n"
    definition.write_text(f"{text}    echo new >a.new; ln a.new b.new; mv a.new a; mv b.new b\n")
    replaced = build(engine, places, definition, "names.sif")
    assert "Once more" not in replaced.log.read_text()
    assert ask(replaced.path, "cat", "/opt/a", "/opt/b", "/opt/d") == "new\nnew\nkept"
    definition.write_text(f"{text}    echo new >a.new; mv a.new a; echo more >>d\n")
    written = build(engine, places, definition, "names.sif")
    assert "Once more" in written.log.read_text()
    assert ask(written.path, "cat", "/opt/a", "/opt/b", "/opt/c") == "new\nold\nkept\nmore"


def test_failed_build_is_taken_up_at_the_failed_line(
    engine: EngineInfo, places: Places, small_image: Path, tmp_path: Path
) -> None:
    definition = tmp_path / "fails.def"
    text = f"Bootstrap: localimage\nFrom: {small_image}\n%post\n    echo '== good'; echo $$ >/opt/good\n    # layer\n\n    echo '== bad'\n    exit 7\n"
    definition.write_text(text)
    told: list[str] = []
    with pytest.raises(BuildError, match=r"fails\.def:7-8: could not run .*: exit status 7") as caught:
        build(engine, places, definition, "a.sif", told=told)
    assert "the steps before it are kept" in str(caught.value.hint)
    assert told[-2:] == ["good", "bad"]
    told.clear()
    definition.write_text(text.replace("exit 7", "true"))
    build(engine, places, definition, "a.sif", told=told)
    assert "good" not in told
    assert "bad" in told


def test_failed_test_names_the_recipe(engine: EngineInfo, places: Places, small_image: Path, tmp_path: Path) -> None:
    definition = tmp_path / "untested.def"
    definition.write_text(f"Bootstrap: localimage\nFrom: {small_image}\n%test\n    echo the reason; exit 3\n")
    with pytest.raises(BuildError, match=r"untested\.def") as caught:
        build(engine, places, definition, "a.sif")
    assert "last.def" not in caught.value.message
    assert any("the reason" in line for line in caught.value.log_tail)


@pytest.mark.user
@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        pytest.param("exit 0\n    # layer\n    touch /opt/never", "", id="ended early"),
        pytest.param("f() { :; }\n    # layer\n    true", "leaves the function f", id="function"),
        pytest.param("trap true EXIT\n    # layer\n    true", "leaves a trap", id="trap"),
        pytest.param("sleep 1000 &\n    # layer\n    true", "leaves a process in the background", id="background"),
        pytest.param("if true; then\n    # layer\n    touch /opt/in\n    fi", "", id="mark in a block"),
        pytest.param("cat >/opt/text <<END\n    # layer\nEND\n    test -s /opt/text", "", id="mark in a text"),
        pytest.param("set +e\n    # layer\n    false\n    # layer\n    set -e", "", id="failure that may be"),
        pytest.param("# layer\n    set +e\n    false", "exit status 1", id="last status counts"),
    ],
)
def test_mark_is_safe_or_an_error(
    script: str, outcome: str, engine: EngineInfo, places: Places, small_image: Path, tmp_path: Path, ask: Ask
) -> None:
    definition = tmp_path / "marks.def"
    definition.write_text(f"Bootstrap: localimage\nFrom: {small_image}\n%post\n    {script}\n")
    if outcome:
        with pytest.raises(BuildError, match=outcome):
            build(engine, places, definition, "a.sif")
        return
    image = build(engine, places, definition, "a.sif").path
    assert ask(image, "sh", "-c", "ls /opt/never 2>/dev/null || echo fine") == "fine"


# In a process of its own, which can be killed.
_PROGRAM = """
import sys
from pathlib import Path
from jupyter_apptainer.engine.locate import get_engine
from jupyter_apptainer.images.build import build_image
from jupyter_apptainer.images.recipes.recipe import load_definition
from jupyter_apptainer.places import find_places

def tell(phase):
    print(phase, file=sys.stderr, flush=True)

build_image(get_engine(sys.argv[1]), find_places(), load_definition(Path(sys.argv[2])), Path(sys.argv[3]), on_progress=tell)
"""


def test_killed_build_leaves_no_half_layer(
    engine: EngineInfo, places: Places, small_image: Path, tmp_path: Path
) -> None:
    definition = tmp_path / "killed.def"
    text = f"Bootstrap: localimage\nFrom: {small_image}\n%post\n    echo half >/opt/half\n    echo '== waiting'; sleep 1000\n"
    definition.write_text(text)
    argv = [sys.executable, "-c", _PROGRAM, engine.path, str(definition), str(tmp_path / "a.sif")]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        next(line for line in process.stderr if line.strip() == "waiting")
        group = find_child(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
        watchdog.cancel()
    # Nobody else would end it: it has no parent any more.
    os.killpg(group, signal.SIGKILL)
    store = Store(places.cache / "layers")
    left = {str(path) for path in store.folder.iterdir() if path.name.startswith(".new-")}
    assert left
    assert left <= {leftover.path for leftover in clean_images(places, [], is_dry=True)}
    assert "sleep" not in [layer.about.title for layer in store.list_all()]
    definition.write_text(text.replace("sleep 1000", "test $(cat /opt/half) = half"))
    build(engine, places, definition, "a.sif")
    assert not [path for path in store.folder.iterdir() if path.name.startswith(".")]
    for folder in places.scratch.glob("build-*"):
        subprocess.run(["unshare", "--map-root-user", "--map-auto", "rm", "-rf", folder], check=True)


def find_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return int(next(word for path in children for word in path.read_text().split()))


def add_layer(
    store: Store, held: Held, key: str, size: int, depth: int, *, below: Layer | None = None, is_shared: bool = True
) -> Layer:
    path = store.begin(held)
    (path / "tree").mkdir()
    (path / "tree/file").write_text(key)
    about = About(key, depth, size, below is None, below.stack if below else ())
    return store.keep(key, path, about, held, is_shared=is_shared)


def test_cache_removes_the_longest_unused_and_nothing_in_use(tmp_path: Path) -> None:
    store, used = Store(tmp_path / "layers"), Held()
    store.prepare()
    for number, key in enumerate(("old", "older-base", "new")):
        held = Held()
        add_layer(store, held, key, 100, number)
        held.release()
        when = {"old": 3000, "older-base": 2000, "new": 4000}[key]
        os.utime(store.folder / key / "about.json", (when, when))
    assert store.find("older-base", used)
    os.utime(store.folder / "older-base/about.json", (2000, 2000))
    assert [layer.key for layer in store.list_all()] == ["older-base", "old", "new"]
    assert [layer.key for layer in store.prune(150)] == ["old", "new"]
    assert store.find("old", used) is None
    used.release()
    assert [layer.key for layer in store.prune(0)] == ["older-base"]
    assert list(store.folder.iterdir()) == []


def test_layers_of_running_builds_are_left_and_those_of_killed_ones_go(tmp_path: Path) -> None:
    store, running, other = Store(tmp_path / "layers"), Held(), Held()
    store.prepare()
    begun = store.begin(running)
    killed = store.begin(other)
    other.release()
    store.remove_leftovers()
    assert begun.is_dir()
    assert not killed.exists()


def test_two_builds_that_make_the_same_layer_share_it_unless_one_wants_its_own(tmp_path: Path) -> None:
    store, first, second, alone = Store(tmp_path / "layers"), Held(), Held(), Held()
    store.prepare()
    assert add_layer(store, first, "same", 1, 0).key == "same"
    assert add_layer(store, second, "same", 1, 0).key == "same"
    own = add_layer(store, alone, "same", 1, 0, is_shared=False)
    assert own.key.startswith("same-")
    above = add_layer(store, alone, "above", 1, 1, below=own)
    for held in (first, second, alone):
        held.release()
    # What is above keeps the one that it was made on, and is none without it.
    found = store.find("above", first)
    assert found
    assert found.stack == above.stack
    assert {layer.key for layer in store.prune(0)} == {"same"}
    first.release()
    (own.path / "about.json").unlink()
    assert store.find("above", first) is None
    first.release()


def test_many_builds_make_the_same_layers_at_once_and_none_meets_another(tmp_path: Path) -> None:
    store = Store(tmp_path / "layers")
    store.prepare()

    def build_often(number: int) -> None:
        for round_ in range(40):
            held = Held()
            key = f"key{round_ % 3}"
            layer = store.find(key, held) or add_layer(store, held, key, 1, 0, is_shared=number % 4 > 0)
            assert (layer.path / "tree/file").read_text() == key
            held.release()
            store.prune(round_ % 2)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(build_often, range(8)))
    store.prune(0)
    assert list(store.folder.iterdir()) == []


def test_command_shows_and_prunes(engine: EngineInfo, places: Places, small_image: Path, tmp_path: Path) -> None:
    definition = tmp_path / "shown.def"
    definition.write_text(f"Bootstrap: localimage\nFrom: {small_image}\n%post\n    echo shown >/opt/shown\n")
    build(engine, places, definition, "a.sif")
    rows = json.loads(run_command("cache", "--json"))
    assert "echo shown >/opt/shown" in [row["step"] for row in rows]
    assert all(row["size_bytes"] > 0 for row in rows)
    assert "echo shown >/opt/shown" in run_command("cache")
    removed = json.loads(run_command("cache", "prune", "--all", "--json"))
    assert {row["layer"] for row in removed} == {row["layer"] for row in rows}
    assert json.loads(run_command("cache", "--json")) == []


def run_command(*words: str) -> str:
    argv = [sys.executable, "-m", "jupyter_apptainer.cli.main", "image", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
