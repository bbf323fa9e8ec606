"""What people do with overlays, on the real engine: install, restart, come back tomorrow, fill them up, lose a server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.errors import (
    DiskFull,
    OverlayBusy,
    OverlayImageMismatch,
    OverlayModeMismatch,
)
from jupyter_apptainer.instances.janitor import find_leftovers, iter_helpers
from jupyter_apptainer.kernels.provisioner import StartFailed
from jupyter_apptainer.overlays.ext3 import MIB, read_ext3
from jupyter_apptainer.overlays.holder import hold_overlay, is_locked
from jupyter_apptainer.overlays.model import load_record
from jupyter_apptainer.places import Places
from jupyter_apptainer.widgets.context import find_context
from jupyter_apptainer.widgets.sections.kernel import load_kernel
from tests.integration.conftest import MakeKernelspec, StartKernel, list_entries
from tests.integration.overlaid import VICTIM, count_victim, installed, overlay_command, pip, read_info
from tests.integration.server import Channels, Server


@pytest.mark.slow
def test_packages_stay_over_restart_and_in_a_new_instance_and_in_a_frozen_layer(
    start_kernel: StartKernel,
    make_kernelspec: MakeKernelspec,
    wheels: Path,
    places: Places,
    starter_image: Path,
) -> None:
    name = make_kernelspec({"overlays": ["auto:128"]})
    first = start_kernel(name=name)
    pip(first, "install -q --no-index ./tinything-1.0-py3-none-any.whl")
    assert first.value("__import__('tinything').VERSION") == "1.0"
    assert first.run("!touch /opt/mine /usr/local/bin/mine /etc/mine").text == ""
    first.client.stop_channels()
    first.manager.restart_kernel()
    first.client = first.manager.client()
    first.connect()
    assert installed(first) == "1.0"
    first.end()
    (path,) = places.overlays.glob(f"kernel-{name}-*.img")
    record = load_record(str(path))
    assert record
    assert record.image == str(starter_image)
    assert record.mode == "plain"
    assert f"kernel {name}".split()[1] in record.origin

    second = start_kernel(name=name)
    assert installed(second) == "1.0"
    pip(second, "install -q --no-index -U ./tinything-2.0-py3-none-any.whl")
    assert installed(second) == "2.0"
    pip(second, f"uninstall -q -y {VICTIM}")
    assert count_victim(second) == 0
    second.end()

    # Read-only, by two kernels at a time: what was deleted stays deleted, and what is written goes to memory.
    readers = [start_kernel({"overlays": [f"{path}:ro"]}) for _ in range(2)]
    for reader in readers:
        assert installed(reader) == "2.0"
        assert count_victim(reader) == 0
        assert reader.run("!touch /opt/in-memory").text == ""
        reader.end()

    layer = wheels / "frozen.sqsh"
    overlay_command("freeze", path, layer)
    overlay_command("remove", "-y", path)
    assert not path.exists()
    assert not list(places.overlays.glob(f"kernel-{name}-*"))
    with pytest.raises(StartFailed, match="can only be read"):
        start_kernel({"overlays": [str(layer)]})
    frozen = start_kernel({"overlays": [f"{layer}:ro"]})
    assert installed(frozen) == "2.0"
    assert count_victim(frozen) == 0
    assert not frozen.value("__import__('os').path.exists('/opt/in-memory')")


@pytest.mark.user
def test_a_module_of_the_kernels_own_that_was_changed_is_the_changed_one(
    start_kernel: StartKernel, overlay: Path
) -> None:
    find = "{n: type(__import__('sys').modules[n].__loader__).__name__ for n in ('IPython', 'ipykernel', 'traitlets')}"
    first = start_kernel({"overlays": [str(overlay)]})
    assert set(first.value(find).values()) == {"BundledLoader"}
    assert first.run("import IPython\nprint('CHANGED = 1', file=open(IPython.__file__, 'a'))").status == "ok"
    first.client.stop_channels()
    first.manager.restart_kernel()
    first.client = first.manager.client()
    first.connect()
    changed = {"IPython": "SourceFileLoader", "ipykernel": "BundledLoader", "traitlets": "BundledLoader"}
    assert first.value(find) == changed
    assert first.value("__import__('IPython').CHANGED") == 1
    first.end()
    second = start_kernel({"overlays": [str(overlay)]})
    assert second.value(find) == changed
    assert second.value("__import__('IPython').CHANGED") == 1


@pytest.mark.user
def test_a_folder_of_packages_takes_installs_and_shadows_the_image(
    start_kernel: StartKernel, wheels: Path, starter_image: Path
) -> None:
    folder = wheels / "my packages"
    overlay_command("create", folder, "--packages", "--image", starter_image)
    kernel = start_kernel({"overlays": [str(folder)]})
    assert kernel.value("__import__('sys').executable") == str(folder / "bin/python")
    assert kernel.run("import numpy").status == "ok"
    pip(kernel, "install -q --no-index ./tinything-1.0-py3-none-any.whl")
    assert installed(kernel) == "1.0"
    assert (
        kernel.run("!pip install -q --no-index --disable-pip-version-check -U ./tinything-2.0-py3-none-any.whl").text
        == ""
    )
    assert installed(kernel) == "2.0"
    assert list(folder.glob("lib/python3*/site-packages/tinything-2.0.dist-info"))
    reader = start_kernel({"overlays": [f"{folder}:ro"]})
    assert installed(reader) == "2.0"
    assert "nowhere to write" in reader.run("%pip uninstall -y tinything").text
    pip(kernel, "uninstall -q -y tinything")
    assert installed(kernel) is None
    kernel.end()
    reader.end()
    assert read_info(folder)["kind"] == "packages"
    overlay_command("remove", "-y", folder)
    assert not folder.exists()


@pytest.mark.user
def test_a_kernel_for_each_notebook_has_an_overlay_of_its_own(
    start_kernel: StartKernel, make_kernelspec: MakeKernelspec, tmp_path: Path, places: Places
) -> None:
    name = make_kernelspec({"overlays": ["auto:notebook:64"]})
    with pytest.raises(StartFailed, match="auto:notebook"):
        start_kernel(name=name, env={k: v for k, v in os.environ.items() if k != "JPY_SESSION_NAME"})
    for title in ("one", "two", "one"):
        notebook = tmp_path / f"{title}.ipynb"
        kernel = start_kernel(name=name, env=os.environ | {"JPY_SESSION_NAME": str(notebook)})
        kernel.run(f"open('/opt/{title}', 'a').write('x')")
        assert kernel.value("[f for f in __import__('os').listdir('/opt') if f in ('one', 'two')]") == [title]
        kernel.end()
    made = sorted(places.overlays.glob("notebook-*.img"))
    assert [path.name.split("-")[1] for path in made] == ["one", "two"]
    rows = json.loads(overlay_command("list", "--json").stdout)
    assert {str(path) for path in made} <= {row["path"] for row in rows}
    overlay_command("remove", "-y", *made)


# --- accidents


def test_killed_in_the_middle_of_a_write_it_is_repaired_at_the_next_start(
    start_kernel: StartKernel, overlay: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = start_kernel({"overlays": [str(overlay)]})
    assert kernel.run("open('/opt/kept', 'w').write('x' * 100_000); import os; os.sync()").status == "ok"
    writing = """
        number = 0
        print("writing", flush=True)
        while True:
            number += 1
            with open(f"/opt/part{number % 20}", "wb") as stream:
                stream.write(os.urandom(500_000))
    """
    msg_id = kernel.begin(textwrap.dedent(writing))
    kernel.wait_text(msg_id, "writing")
    instance = kernel.instance
    # The worst that can happen to a file system: its own program is killed, then everything else.
    for helper in iter_helpers(instance):
        if helper.comm == "fuse2fs":
            os.kill(helper.pid, signal.SIGKILL)
    kernel.end()
    found = read_ext3(str(overlay))
    assert found
    assert not found.is_clean
    assert read_info(overlay)["state"] == "not closed properly"

    with caplog.at_level("WARNING"):
        again = start_kernel({"overlays": [str(overlay)]})
    assert "checked and repaired" in caplog.text
    assert again.value("len(open('/opt/kept').read())") == 100_000
    again.end()
    assert "clean" in overlay_command("check", overlay).stdout


def test_a_holder_whose_server_died_is_ended_and_the_work_goes_on(
    make_kernelspec: MakeKernelspec, overlay: Path, places: Places, tmp_path: Path
) -> None:
    name = make_kernelspec({"overlays": [str(overlay)]})
    script = (
        "import sys, time\nfrom jupyter_client.manager import KernelManager\n"
        "KM = KernelManager(kernel_name=sys.argv[1])\nKM.start_kernel(cwd=sys.argv[2])\nprint('up', flush=True)\ntime.sleep(99)"
    )
    server = subprocess.Popen([sys.executable, "-c", script, name, tmp_path], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "up\n"
    busy = overlay_command("check", overlay, status=1).stderr
    (entry,) = list_entries(places)
    assert f"in use by the kernel of {name}" in busy
    assert entry.name in busy
    for way_out in (f"instance stop {entry.name}", ":ro", "overlay create COPY --from"):
        assert way_out in busy
    with pytest.raises(OverlayBusy), hold_overlay(str(overlay), places, for_writing=False):
        pass
    assert "in use" in overlay_command("remove", "-y", overlay, status=1).stderr
    assert overlay.exists()
    server.kill()
    server.communicate()
    # Whoever is first, the command or what looks after the kernels of dead servers: the overlay is free for it, and clean.
    assert overlay_command("check", overlay).stdout.endswith(": clean\n")
    assert find_leftovers(places) == []
    assert not is_locked(str(overlay), for_writing=True)


def test_what_was_installed_outlives_a_server_that_is_killed(
    make_kernelspec: MakeKernelspec, wheels: Path, overlay: Path
) -> None:
    name = make_kernelspec({"overlays": [str(overlay)]})
    server = Server(wheels)
    with Channels(server, server.start_kernel(name)) as channels:
        assert channels.run("%pip install -q --no-index ./tinything-1.0-py3-none-any.whl")[0] == "ok"
        assert channels.run("import tinything; print(tinything.VERSION)") == ("ok", "1.0\n")
    server.process.kill()
    server.wait()
    other = Server(wheels)
    try:
        with Channels(other, other.start_kernel(name)) as channels:
            assert channels.run("import tinything; print(tinything.VERSION)") == ("ok", "1.0\n")
    finally:
        other.end()


@pytest.mark.user
def test_a_full_overlay_is_told_of_and_grows_without_loss(
    start_kernel: StartKernel, overlay: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = start_kernel({"overlays": [str(overlay)]})
    kernel.run("open('/opt/kept', 'w').write('kept')")
    fill = (
        "for n in range(100):\n    with open(f'/opt/large{n}', 'wb') as stream:\n        stream.write(bytes(1_000_000))"
    )
    reply = kernel.run(fill)
    assert (reply.ename, "No space left" in reply.evalue) == ("OSError", True)
    kernel.end()
    assert read_info(overlay)["used_fraction"] > 0.95
    assert "overlay grow" in overlay_command("info", overlay).stderr
    with caplog.at_level("WARNING"):
        full = start_kernel({"overlays": [str(overlay)]})
    assert "% full" in caplog.text
    assert full.run("print(open('/opt/kept').read())").text == "kept\n"
    # The panel draws it, and stops the kernel to make it larger.
    section = load_kernel(find_context())
    (bar,) = section.bars
    assert (bar.fraction or 0) > 0.95
    assert {name for name, _ in section.rows[0].facts} >= {"memory", "processor", "overlay"}
    grow = next(form for form in section.forms if form.label == "Grow its overlay")
    assert not section.rows[0].reasons[grow.label]
    words = grow.build({"size": "100M"}, section.rows[0].key)
    assert "in use" in overlay_command(*[word for word in words[1:] if word != "--stop"], status=1).stderr
    assert full.provisioner.kernel_id
    assert f"ended {full.provisioner.kernel_id[:8]}" in overlay_command(*words[1:]).stderr
    full.end()
    assert overlay.stat().st_size == 164 * MIB
    assert overlay_command("grow", overlay, "100M", status=2).stderr.startswith("error")
    grown = start_kernel({"overlays": [str(overlay)]})
    assert grown.value("open('/opt/kept').read()") == "kept"
    assert grown.run("open('/opt/more', 'wb').write(bytes(60_000_000))").status == "ok"


@pytest.mark.root
def test_a_full_disk_refuses_before_damage(start_kernel: StartKernel, starter_image: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m,mode=700", "tmpfs", small], check=True)
    try:
        overlay = small / "layer.img"
        overlay_command("create", overlay, "--size", "1G", "--image", starter_image)
        space = os.statvfs(small)
        (small / "fill").write_bytes(bytes(space.f_bavail * space.f_bsize - 10 * MIB))
        with pytest.raises(StartFailed) as refused:
            start_kernel({"overlays": [str(overlay)]})
        assert refused.value.error.code == DiskFull.code
        assert "left" in overlay_command("create", small / "another.img", status=1).stderr
        reader = start_kernel({"overlays": [f"{overlay}:ro"]})
        reader.end()
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)


# --- what does not go together


@pytest.mark.user
def test_another_image_is_refused_until_it_is_adopted(
    start_kernel: StartKernel, overlay: Path, starter_image: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.sif"
    other.symlink_to(starter_image)
    start_kernel({"image": str(other), "overlays": [str(overlay)]}).end()
    bare = tmp_path / "bare"
    (bare / "bin").mkdir(parents=True)
    (bare / "bin/sh").touch()
    for word in (f"{overlay}", f"{overlay}:ro"):
        with pytest.raises(StartFailed) as refused:
            start_kernel({"image": str(bare), "overlays": [word]})
        assert refused.value.error.code == OverlayImageMismatch.code
        assert starter_image.name in refused.value.error.message
        assert f"overlay check '{overlay}' --image {bare}" in (refused.value.error.hint or "")
    overlay_command("check", overlay, "--image", bare)
    with pytest.raises(StartFailed) as refused:
        start_kernel({"overlays": [str(overlay)]})
    assert refused.value.error.code == OverlayImageMismatch.code


def test_fakeroot_upon_a_plain_overlay_is_refused(start_kernel: StartKernel, overlay: Path) -> None:
    with pytest.raises(StartFailed) as refused:
        start_kernel({"overlays": [str(overlay)], "extra_flags": ["--fakeroot"]})
    assert refused.value.error.code == OverlayModeMismatch.code
    assert ":ro" in (refused.value.error.hint or "")


@pytest.mark.user
def test_an_overlay_for_fakeroot_makes_its_kernel_root_in_a_namespace(
    start_kernel: StartKernel, wheels: Path, starter_image: Path
) -> None:
    path = wheels / "as-root.img"
    overlay_command("create", path, "--size", "64M", "--image", starter_image, "--mode", "fakeroot")
    kernel = start_kernel({"overlays": [str(path)]})
    assert kernel.value("__import__('os').getuid()") == 0
    assert kernel.value("__import__('os').environ['HOME']") == os.environ["HOME"]
    pip(kernel, "install -q --no-index --root-user-action ignore ./tinything-1.0-py3-none-any.whl")
    kernel.run("open('made-here', 'w').close()")
    kernel.end()
    assert (wheels / "made-here").stat().st_uid == os.getuid()
    again = start_kernel({"overlays": [str(path)]})
    assert installed(again) == "1.0"
    again.end()
    # Others can read it without being root.
    reader = start_kernel({"overlays": [f"{path}:ro"]})
    assert installed(reader) == "1.0"
    assert reader.value("__import__('os').getuid()") == os.getuid()


@pytest.mark.user
def test_the_mode_is_found_out_by_asking_the_image(
    engine: EngineInfo,
    make_small_image: Callable[[], Path],
    run_in: Callable[..., str],
    starter_image: Path,
    tmp_path: Path,
) -> None:
    image = make_small_image()
    overlay_command("create", tmp_path / "plain.img", "--size", "64", "--image", image)
    assert read_info(tmp_path / "plain.img")["mode"] == "plain"
    # A folder of another id, as the image's are to an engine that cannot show them as the user's.
    mount = ("--fakeroot", "--bind", f"{image}:/mnt")
    run_in(starter_image, "chown 1:1 /mnt/usr", *mount)
    try:
        overlay_command("create", tmp_path / "as-root.img", "--size", "64", "--image", image)
        assert read_info(tmp_path / "as-root.img")["mode"] == "fakeroot"
    finally:
        run_in(starter_image, "chown 0:0 /mnt/usr", *mount)


# --- a new image
