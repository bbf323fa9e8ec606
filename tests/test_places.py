"""Where files of ours lie, and that nobody else can get between us and them."""

from __future__ import annotations

import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from jupyter_apptainer.places import find_places, is_private_dir, make_private_dir, write_private_file

UID = os.getuid()


@pytest.mark.parametrize(
    ("environ", "data", "cache", "scratch"),
    [
        pytest.param(
            {},
            "/home/u/.local/share/jupyter-apptainer",
            "/home/u/.cache/jupyter-apptainer",
            f"/var/tmp/jpa-{UID}",
            id="home",
        ),
        pytest.param(
            {"XDG_DATA_HOME": "/d", "XDG_CACHE_HOME": "/c"},
            "/d/jupyter-apptainer",
            "/c/jupyter-apptainer",
            f"/var/tmp/jpa-{UID}",
            id="xdg",
        ),
        pytest.param(
            {"JUPYTER_APPTAINER_HOME": "/own", "XDG_DATA_HOME": "/d", "XDG_CACHE_HOME": "/c"},
            "/own",
            "/own/cache",
            f"/var/tmp/jpa-{UID}",
            id="own-home-wins",
        ),
        pytest.param(
            {"TMPDIR": "/scratch/job"},
            "/home/u/.local/share/jupyter-apptainer",
            "/home/u/.cache/jupyter-apptainer",
            f"/scratch/job/jpa-{UID}",
            id="tmpdir",
        ),
        pytest.param(
            {"XDG_DATA_HOME": "", "XDG_CACHE_HOME": "", "TMPDIR": "", "JUPYTER_APPTAINER_HOME": ""},
            "/home/u/.local/share/jupyter-apptainer",
            "/home/u/.cache/jupyter-apptainer",
            f"/var/tmp/jpa-{UID}",
            id="empty-is-unset",
        ),
    ],
)
def test_folders_follow_the_environment(environ: dict[str, str], data: str, cache: str, scratch: str) -> None:
    found = find_places({"HOME": "/home/u", **environ})
    assert (str(found.data), str(found.cache), str(found.scratch)) == (data, cache, scratch)
    assert found.engine_prefix == found.data / "engine"
    assert found.images == found.data / "images"
    assert found.probes == found.cache / "probes"
    assert found.ledger == found.data / "ledger" / socket.gethostname()


def test_sockets_go_to_the_sessions_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert find_places({"HOME": "/h", "XDG_RUNTIME_DIR": str(tmp_path)}).runtime == tmp_path / "jpa"


@pytest.mark.parametrize("kind", ["missing", "link", "others-can-write", "empty"])
def test_a_sessions_folder_that_is_not_ours_is_not_used(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "session"
    match kind:
        case "link":
            folder.symlink_to(tmp_path)
        case "others-can-write":
            folder.mkdir()
            folder.chmod(0o777)
    value = "" if kind == "empty" else str(folder)
    assert find_places({"HOME": "/h", "XDG_RUNTIME_DIR": value}).runtime == Path(f"/tmp/jpa-{UID}")


def test_finding_makes_nothing(tmp_path: Path) -> None:
    find_places({"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []


# --- private folders


def test_a_new_folder_is_for_us_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = make_private_dir(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert stat.S_IMODE(made.parent.stat().st_mode) & 0o022 == 0 or made.parent == tmp_path


def test_a_folder_of_ours_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o700)
    assert make_private_dir(tmp_path / "a") == tmp_path / "a"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o1777], ids=oct)
def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(mode)
    with pytest.raises(PermissionError, match="not a folder of ours"):
        make_private_dir(tmp_path / "a")


@pytest.mark.parametrize("kind", ["link-to-ours", "dangling-link", "file"])
def test_what_is_no_folder_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    match kind:
        case "link-to-ours":
            (tmp_path / "real").mkdir(mode=0o700)
            path.symlink_to(tmp_path / "real")
        case "dangling-link":
            path.symlink_to(tmp_path / "nothing")
        case "file":
            path.write_text("")
    with pytest.raises(PermissionError, match="not a folder of ours"):
        make_private_dir(path)


@pytest.mark.root
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o700)
    os.chown(tmp_path / "a", 65534, 65534)
    assert not is_private_dir(tmp_path / "a")
    with pytest.raises(PermissionError, match="not a folder of ours"):
        make_private_dir(tmp_path / "a")


@pytest.mark.user
def test_roots_folder_is_refused() -> None:
    with pytest.raises(PermissionError, match="not a folder of ours"):
        make_private_dir(Path("/usr"))


# --- private files


def test_a_file_is_for_us_alone_whatever_the_umask_and_the_old_mode(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    path.chmod(0o666)
    before = os.umask(0)
    try:
        assert write_private_file(path, "nü") == path
    finally:
        os.umask(before)
    assert path.read_text(encoding="utf-8") == "nü"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("kept")
    path = tmp_path / "f"
    path.symlink_to(target)
    write_private_file(path, "new")
    assert not path.is_symlink()
    assert (path.read_text(), target.read_text()) == ("new", "kept")


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = write_private_file(tmp_path / "f", "old")
    with pytest.raises(UnicodeEncodeError):
        write_private_file(path, "a lone surrogate: \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_readers_see_the_old_or_the_new_and_never_a_part(tmp_path: Path) -> None:
    path = tmp_path / "f"
    texts = {letter * 200_000 for letter in "ab"}
    write_private_file(path, "a" * 200_000)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for text in texts:
                write_private_file(path, text)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        assert all(path.read_text() in texts for _ in range(200))
    finally:
        stop.set()
        writer.join()


def test_two_threads_that_write_the_same_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "f"
    errors: list[BaseException] = []

    def write(letter: str) -> None:
        try:
            for _ in range(300):
                write_private_file(path, letter * 1000)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(letter,), daemon=True) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert path.read_text() in {letter * 1000 for letter in "abcd"}
    assert list(tmp_path.iterdir()) == [path]
