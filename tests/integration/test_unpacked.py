"""Kernels from unpacked copies of images: the same as from the image, from the second start on, and never from a copy of another image."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager
from traitlets.config import Config

from jupyter_apptainer.config import ApptainerConfig
from jupyter_apptainer.images.copies import CopyStore
from jupyter_apptainer.kernels.explain import render_plan
from jupyter_apptainer.kernels.unpacked import find_store
from jupyter_apptainer.places import Places
from jupyter_apptainer.tasks.follow import wait_for_task
from jupyter_apptainer.tasks.stop import cancel_task
from jupyter_apptainer.tasks.store import forget_task, iter_tasks
from tests.integration.conftest import TIMEOUT_S, RunningKernel, StartKernel, list_entries

FACTS = r"""
import json, os, subprocess, sys
mounts = [line.split() for line in open("/proc/self/mountinfo")]
names = [f for f in os.environ if f.startswith(("APPTAINER", "SINGULARITY"))] + ["PATH", "PS1", "HOME", "LD_LIBRARY_PATH"]
refused = []
for path in ("/x", "/usr/x", "/opt/venv/x", sys.prefix + "/x"):
    try:
        open(path, "w")
    except OSError as error:
        refused.append(error.errno)
walk = []
for folder, folders, files in os.walk(sys.prefix, onerror=lambda error: walk.append(repr(error))):
    for name in files:
        found = os.lstat(os.path.join(folder, name))
        walk.append((folder, name, found.st_mode, found.st_size, int(found.st_mtime), found.st_uid, found.st_nlink))
print(json.dumps({
    "env": {name: os.environ.get(name) for name in names},
    "places": sorted(line[4] for line in mounts if "/mnt/session" not in line[4]),
    "top": sorted(os.listdir("/")),
    "meta": sorted(os.listdir("/.singularity.d/env")),
    "python": [sys.executable, sys.prefix, sys.version, sys.path],
    "cwd": os.getcwd(),
    "refused": refused,
    "owners": [(p, os.stat(p).st_uid, os.stat(p).st_gid) for p in ("/", "/usr", "/etc/os-release", "/etc/shadow", "/tmp")],
    "walk": sorted(walk),
}))
"""


def make_manager(**settings: Any) -> KernelManager:
    config = {"unpacked_images": "2G", "task_niceness": 0, **settings}
    return KernelManager(config=Config({"ApptainerConfig": config}))


def read_facts(kernel: RunningKernel) -> dict[str, Any]:
    reply = kernel.run(FACTS)
    assert reply.status == "ok", reply
    return dict(json.loads(reply.text))


def find_tree(kernel: RunningKernel, places: Places) -> str:
    """The copy that a kernel was started from, as the ledger has it."""
    assert kernel.provisioner.kernel is not None
    name = kernel.provisioner.kernel.plan.entry_name
    return next(entry.unpacked for entry in list_entries(places) if entry.name == name)


def wait_for_copy(places: Places, image: Path) -> str:
    """Wait for the task that the start of a kernel begins, and return the copy's folder."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (tasks := [task for task in iter_tasks(places) if task.spec.args.get("image") == str(image)]):
        # A thread of the start begins it: nothing on the disk tells that it will.
        assert time.monotonic() < deadline, "no task was begun"
        time.sleep(0.05)
    return str(wait_for_task(places, tasks[0].id)["path"])


@pytest.fixture
def own_image(starter_image: Path, tmp_path: Path) -> Path:
    """An image that may change."""
    return Path(shutil.copyfile(starter_image, tmp_path / "own.sif"))


@pytest.fixture
def store(places: Places) -> Iterator[CopyStore]:
    """The copies; at the end there are none, and nobody makes any."""
    store = find_store(ApptainerConfig(config=Config({"ApptainerConfig": {"unpacked_images": "2G"}})), places)
    yield store
    for thread in threading.enumerate():
        if thread.name == "unpack-image":
            thread.join(TIMEOUT_S)
    for task in list(iter_tasks(places)):
        if task.spec.kind == "image-unpack":
            cancel_task(places, task.id)
            forget_task(places, task.id)
    store.prune(0)
    assert sorted(path.name for path in store.folder.iterdir()) == [".lock"]


def test_the_second_kernel_starts_from_a_copy_and_finds_what_the_first_has_found(
    store: CopyStore, start_kernel: StartKernel, places: Places, own_image: Path
) -> None:
    link = own_image.with_name("link.sif")
    link.symlink_to(own_image)
    config = {"image": str(link)}
    first = start_kernel(config, manager=make_manager())
    tree = wait_for_copy(places, own_image)
    assert find_tree(first, places) == ""
    second = start_kernel(name=first.manager.kernel_name, manager=make_manager())
    assert find_tree(second, places) == tree
    one, other = read_facts(first), read_facts(second)
    for facts, running in ((one, first), (other, second)):
        # Each has folders of its own, and an instance: their names end with the same word.
        name = running.instance.name
        facts.update(json.loads(json.dumps(facts).replace(name, "NAME").replace(name.rpartition("-")[2], "OWN")))
    assert one == other
    assert (one["env"]["APPTAINER_CONTAINER"], one["env"]["APPTAINER_NAME"]) == (str(link), "link.sif")
    assert one["refused"] == [30, 30, 30, 30]
    assert second.instance.image == str(link)
    kernel = second.provisioner.kernel
    assert kernel is not None
    assert f"# Image: its unpacked copy {tree} is started" in render_plan(kernel.plan)

    # A restart is a start in the same container; a new container is made of the image that is there now.
    os.utime(own_image)
    second.manager.restart_kernel()
    second.client.wait_for_ready(timeout=TIMEOUT_S)
    assert find_tree(second, places) == tree
    # Too little for a copy of the new image: it would take its time.
    second.provisioner.settings.unpacked_images = "1M"
    second.instance.init.send_signal(9)
    second.instance.starter.wait_gone(TIMEOUT_S)
    second.manager.restart_kernel()
    second.client.wait_for_ready(timeout=TIMEOUT_S)
    assert find_tree(second, places) == ""
    store.drop_stale()
    assert not Path(tree).exists()
