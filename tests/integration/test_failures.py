"""Every way in which a start can fail says so in one message with one hint, and leaves nothing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.options import build_image_build
from jupyter_apptainer.engine.runner import Runner
from jupyter_apptainer.places import Places
from tests.integration.conftest import MakeKernelspec, StartKernel, list_entries


@dataclass(frozen=True)
class Case:
    """config: of the kernel, with {tmp} and {image} filled in. says, hints: patterns of the message and of its hint."""

    config: dict[str, object]
    says: str
    hints: str


CASES = {
    "image-missing": Case({"image": "{tmp}/nosuch.sif"}, r"image .*nosuch\.sif", r"."),
    "image-is-text": Case({"image": "{tmp}/text.sif"}, r"text\.sif.* not an? ", r"sif"),
    "image-cut-short": Case({"image": "{tmp}/cut.sif"}, r"cut\.sif", r"again"),
    "image-is-an-empty-folder": Case({"image": "{tmp}/empty"}, r"empty", r"."),
    "image-is-a-uri": Case({"image": "docker://example.invalid/x"}, r"not on this machine", r"pull"),
    "unknown-field": Case({"imgae": "x"}, r"imgae", r"image"),
    "ill-typed-field": Case({"nv": 3}, r"nv.*3", r"true"),
    "overlay-missing": Case({"overlays": ["{tmp}/nosuch.img"]}, r"overlay .*nosuch\.img", r"overlay create"),
    "overlay-is-junk": Case({"overlays": ["{tmp}/text.sif"]}, r"text\.sif", r"."),
    "two-writable-overlays": Case({"overlays": ["{tmp}/empty", "tmpfs"]}, r"at most one", r":ro"),
    "bind-missing": Case({"binds": ["{tmp}/nosuch:/data"]}, r"does not exist: .*nosuch", r"create"),
    "home-missing": Case({"home": "{tmp}/nosuch"}, r"home.*nosuch", r"none"),
    "no-such-program": Case({"command": ["nosuchprogram", "{connection_file}"]}, r"nosuchprogram", r"."),
    "no-such-python": Case(
        {"command": ["python9", "-m", "ipykernel_launcher", "-f", "{connection_file}"]}, r"python9", r"python"
    ),
    "no-ipykernel": Case(
        {"command": ["/usr/bin/python3", "-Im", "ipykernel_launcher", "-f", "{connection_file}"]},
        r"no ipykernel",
        r"pip install ipykernel",
    ),
    "program-fails": Case(
        {"command": ["sh", "-c", "echo out of luck >&2; exit 7; echo {connection_file}"]},
        r"exit status 7",
        r"last lines",
    ),
    "unknown-flag": Case({"extra_flags": ["--no-such-flag"]}, r"no-such-flag", r"."),
}


def fill(value: object, tmp: Path) -> object:
    match value:
        case str():
            return value.replace("{tmp}", str(tmp))
        case list():
            return [fill(item, tmp) for item in value]
        case dict():
            return {key: fill(item, tmp) for key, item in value.items()}
        case _:
            return value


@pytest.fixture
def things(tmp_path: Path, starter_image: Path) -> Path:
    """Files that look like images and are none."""
    (tmp_path / "text.sif").write_text("this is no image\n" * 100)
    (tmp_path / "empty").mkdir()
    with starter_image.open("rb") as source, (tmp_path / "cut.sif").open("wb") as target:
        target.write(source.read(3_000_000))
    return tmp_path


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
def test_the_message_names_object_reason_and_next_step(
    case: Case, start_raw: Callable[[dict[str, object]], str], things: Path, places: Places
) -> None:
    config = fill(case.config, things)
    assert isinstance(config, dict)
    text = start_raw(config)
    message, _ = text.split("\nHint: ", 1)
    assert re.search(case.says, message), text
    assert re.search(case.hints, text), text
    assert "%" not in text
    assert "Traceback" not in message
    assert list_entries(places) == []


@pytest.fixture
def start_raw(starter_image: Path, start_kernel: StartKernel, tmp_path: Path) -> Callable[[dict[str, object]], str]:
    """Start a kernel from a kernel.json that no tool of ours has checked, and return what Jupyter's dialog would show."""
    import json

    from jupyter_client.manager import KernelManager
    from jupyter_core.paths import jupyter_data_dir

    def start(config: dict[str, object]) -> str:
        folder = Path(jupyter_data_dir(), "kernels", "raw")
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "argv": ["python", "-f", "{connection_file}"],
            "display_name": "raw",
            "language": "python",
            "metadata": {
                "kernel_provisioner": {
                    "provisioner_name": "apptainer-provisioner",
                    "config": {"image": str(starter_image), **config},
                }
            },
        }
        (folder / "kernel.json").write_text(json.dumps(content))
        manager = KernelManager(kernel_name="raw")
        try:
            with pytest.raises(RuntimeError) as caught:
                manager.start_kernel(cwd=str(tmp_path))
        finally:
            manager.cleanup_resources()
            shutil.rmtree(folder)
        return str(caught.value)

    return start


def test_overlay_in_use_names_the_kernel_that_holds_it(
    engine: EngineInfo, start_kernel: StartKernel, start_raw: Callable[[dict[str, object]], str], tmp_path: Path
) -> None:
    overlay = tmp_path / "layer.img"
    subprocess.run(
        [engine.path, "overlay", "create", "--sparse", overlay],
        env=build_engine_environment(os.environ),
        check=True,
        capture_output=True,
    )
    first = start_kernel({"overlays": [str(overlay)]}, env=os.environ | {"JPY_SESSION_NAME": "/home/me/thesis.ipynb"})
    text = start_raw({"overlays": [str(overlay)]})
    assert "in use by the kernel of /home/me/thesis.ipynb" in text
    assert first.instance.name in text
    assert "in use" in start_raw({"overlays": [f"{overlay}:ro"]})
    first.manager.shutdown_kernel()
    start_kernel({"overlays": [str(overlay)]})


def test_an_image_without_python(
    engine: EngineInfo, start_raw: Callable[[dict[str, object]], str], tmp_path: Path
) -> None:
    root = tmp_path / "root"
    for folder in ("bin", "dev", "etc", "proc", "sys", "tmp", "var/tmp", "usr", "home", "root"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    image = tmp_path / "bare.sif"
    Runner().run(build_image_build(engine, str(image), str(root), build_engine_environment(os.environ)))
    text = start_raw({"image": str(image)})
    assert re.search(r"python", text)
    assert "bare.sif" in text


def test_a_damaged_image(start_raw: Callable[[dict[str, object]], str], starter_image: Path, tmp_path: Path) -> None:
    image = tmp_path / "damaged.sif"
    shutil.copyfile(starter_image, image)
    size = image.stat().st_size
    with image.open("r+b") as stream:
        for offset in range(1_000_000, size - 100_000, 500_000):
            stream.seek(offset)
            stream.write(b"\xff" * 100_000)
    text = start_raw({"image": str(image)})
    assert "damaged.sif" in text
    assert re.search("damaged|corrupt", text)


def test_no_engine(start_raw: Callable[[dict[str, object]], str], tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        text = start_raw({})
    assert "no apptainer or singularity found" in text
    assert "jupyter apptainer engine install" in text


@pytest.mark.root
def test_a_full_disk(start_raw: Callable[[dict[str, object]], str], tmp_path: Path, places: Places) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", small], check=True)
    try:
        (small / "fill").write_bytes(b"x" * 64 * 1024)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_RUNTIME_DIR", str(small))
            text = start_raw({})
        assert "no space left" in text.lower()
    finally:
        subprocess.run(["umount", small], check=True)
    assert list_entries(places) == []


def test_the_instance_dies_while_the_kernel_starts(
    start_raw: Callable[[dict[str, object]], str], places: Places
) -> None:
    def kill_init() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for entry in list_entries(places):
                if entry.instance is not None:
                    entry.instance.init.send_signal(signal.SIGKILL)
                    return

    killer = threading.Thread(target=kill_init, daemon=True)
    killer.start()
    text = start_raw({"command": ["sh", "-c", "sleep 60; echo {connection_file}"]})
    killer.join()
    assert re.search("instance .* ended|signal SIGKILL", text), text
    assert list_entries(places) == []


START = """
import sys
from jupyter_client.manager import KernelManager
manager = KernelManager(kernel_name=sys.argv[1])
try:
    manager.start_kernel(cwd="/")
except RuntimeError as error:
    print(error)
finally:
    manager.cleanup_resources()
"""


def start_under(wrapper: list[str], name: str) -> str:
    """Start a kernel in a process whose world `wrapper` has changed, and return what it says."""
    done = subprocess.run(
        [*wrapper, sys.executable, "-c", START, name], capture_output=True, text=True, timeout=100, check=True
    )
    return done.stdout


@pytest.mark.root
def test_no_fuse(make_kernelspec: MakeKernelspec, places: Places) -> None:
    script = 'mount --bind /dev/null /dev/fuse; exec "$@"'
    text = start_under(["unshare", "--mount", "sh", "-c", script, "sh"], make_kernelspec())
    assert "/dev/fuse" in text
    assert "Hint:" in text
    assert list_entries(places) == []


def test_no_user_namespaces(make_kernelspec: MakeKernelspec, places: Places) -> None:
    script = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    text = start_under(["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"], make_kernelspec())
    assert re.search("user namespace", text), text
    assert "Hint:" in text
    assert list_entries(places) == []
