"""Real kernels in real instances, through jupyter_client as every front end uses it."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from jupyter_core.paths import jupyter_data_dir
from traitlets.config import Config

from jupyter_apptainer.instances.ledger import iter_entries
from jupyter_apptainer.instances.model import Instance, LedgerEntry
from jupyter_apptainer.instances.process import read_children
from jupyter_apptainer.kernels import forking
from jupyter_apptainer.kernels.forked import wait_ready
from jupyter_apptainer.kernels.kernelspecs import add_kernelspec
from jupyter_apptainer.kernels.limits import has_memory_to_spare
from jupyter_apptainer.kernels.provisioner import ApptainerProvisioner
from jupyter_apptainer.kernels.spec import parse_container_spec
from jupyter_apptainer.places import Places

TIMEOUT_S = 60.0
# A cell's minute, in which an interrupt may come at any moment. One long sleep would not do: a signal between the interpreter's
# last look and the system call is only noticed when the sleep is over, in any kernel. Nor would `flush=True` in a print before:
# a kernel that was interrupted just then once sent nothing more; probably the lock of ipykernel's wait for the flush stayed taken.
SLEEP = "import time\nfor _ in range(600): time.sleep(0.1)"


@dataclass(frozen=True)
class Mode:
    """A way in which kernels come to be, which nobody must be able to tell from the others. config: of kernel.json; settings: of `ApptainerConfig`.

    spare: the kernel that a test sees has been one that waited, and is what a restart took.
    """

    name: str
    config: Mapping[str, object] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)

    def build_manager(self) -> KernelManager:
        """Return a manager whose kernels come in this way."""
        return KernelManager(config=Config({"ApptainerConfig": dict(self.settings)}))

    def settle(self, manager: KernelManager) -> None:
        """Have the kernel that was just started be one of this mode."""
        if self is SPARE and has_fork_server(manager):
            spares = list_spares(manager)
            manager.restart_kernel(now=True)
            assert find_pid(manager) in spares or not has_memory_to_spare()


FORKED = Mode("forked")
JOINED = Mode("joined", settings={"fork_kernels": False})
SPARE = Mode("spare", config={"preload": ["json"]})
# A test runs as two users, each in a mode other than the usual one; it is `forked` everywhere else.
OTHER_MODE = SPARE if os.geteuid() == 0 else JOINED


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What is marked with `modes` runs in the mode that this user has for it."""
    if metafunc.definition.get_closest_marker("modes") and "mode" in metafunc.fixturenames:
        metafunc.parametrize("mode", [pytest.param(OTHER_MODE, id=OTHER_MODE.name)], indirect=True, scope="module")


@pytest.fixture(scope="module")
def mode(request: pytest.FixtureRequest) -> Iterator[Mode]:
    """How kernels come to be in the tests of this module."""
    chosen: Mode = getattr(request, "param", FORKED)
    with pytest.MonkeyPatch.context() as patch:
        if chosen is SPARE:
            patch.setattr(forking, "SETTLE_S", 0.0)
        yield chosen


def has_fork_server(manager: KernelManager) -> bool:
    """Say whether the kernel could be forked: not where it is no ipykernel, or has tight limits."""
    assert isinstance(manager.provisioner, ApptainerProvisioner)
    assert manager.provisioner.kernel is not None
    return manager.provisioner.kernel.plan.fork_server is not None


def find_pid(manager: KernelManager) -> int:
    """Return the pid of the process that Jupyter takes for the kernel."""
    assert isinstance(manager.provisioner, ApptainerProvisioner)
    assert manager.provisioner.kernel is not None
    assert manager.provisioner.kernel.process is not None
    return manager.provisioner.kernel.process.pid


def list_spares(manager: KernelManager) -> list[int]:
    """Wait until the kernel's server has all spares that it shall have, and return their pids."""
    assert isinstance(manager.provisioner, ApptainerProvisioner)
    runner = manager.provisioner.kernel
    assert runner is not None
    assert runner.instance is not None
    asyncio.run(wait_ready(runner.plan, runner.instance, TIMEOUT_S))
    (server,) = read_children(runner.instance.init.pid)
    return sorted(set(read_children(server)) - {find_pid(manager)})


@dataclass
class Reply:
    """What one cell gave: the reply's status, what it printed, the error's name, how many errors there were."""

    status: str
    text: str = ""
    ename: str = ""
    evalue: str = ""
    errors: int = 0
    data: dict[str, Any] = field(default_factory=dict)


@dataclass
class RunningKernel:
    """A kernel with a connected client."""

    manager: KernelManager
    client: BlockingKernelClient

    @property
    def provisioner(self) -> ApptainerProvisioner:
        assert isinstance(self.manager.provisioner, ApptainerProvisioner)
        return self.manager.provisioner

    @property
    def instance(self) -> Instance:
        kernel = self.provisioner.kernel
        assert kernel is not None
        assert kernel.instance is not None
        return kernel.instance

    def connect(self) -> None:
        """Open the channels and wait until the kernel answers."""
        self.client.start_channels()
        self.client.wait_for_ready(timeout=TIMEOUT_S)

    def end(self) -> None:
        """Shut the kernel down if it still runs, and give back what the client holds."""
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=True)
        else:
            self.manager.cleanup_resources()

    def begin(self, code: str) -> str:
        """Send a cell and wait until the kernel is busy with it."""
        msg_id: str = self.client.execute(code)
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            message = self.client.get_iopub_msg(timeout=TIMEOUT_S)
            if message["parent_header"].get("msg_id") == msg_id and message["msg_type"] == "execute_input":
                return str(msg_id)
        raise AssertionError("the kernel did not begin")

    def wait_text(self, msg_id: str, text: str) -> None:
        """Wait until the cell has printed `text`."""
        seen = ""
        while text not in seen:
            message = self.client.get_iopub_msg(timeout=TIMEOUT_S)
            if message["parent_header"].get("msg_id") == msg_id and message["msg_type"] == "stream":
                seen += message["content"]["text"]

    def finish(self, msg_id: str, timeout_s: float = TIMEOUT_S) -> Reply:
        """Collect what the cell gives until it is idle."""
        reply = Reply(status="")
        while True:
            message = self.client.get_iopub_msg(timeout=timeout_s)
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            content = message["content"]
            match message["msg_type"]:
                case "stream":
                    reply.text += content["text"]
                case "error":
                    reply.errors += 1
                    reply.ename, reply.evalue = content["ename"], content["evalue"]
                case "execute_result" | "display_data":
                    reply.data.update(content["data"])
                case "status" if content["execution_state"] == "idle":
                    break
        shell = self.client.get_shell_msg(timeout=timeout_s)
        while shell["parent_header"].get("msg_id") != msg_id:
            shell = self.client.get_shell_msg(timeout=timeout_s)
        reply.status = shell["content"]["status"]
        return reply

    def run(self, code: str, timeout_s: float = TIMEOUT_S) -> Reply:
        """Run a cell to its end."""
        return self.finish(self.client.execute(code), timeout_s)

    def value(self, expression: str) -> Any:
        """Evaluate an expression in the kernel; it must survive JSON."""
        reply = self.run(f"import json as _json; print(_json.dumps({expression}))")
        assert reply.status == "ok", reply
        return json.loads(reply.text)


MakeKernelspec = Callable[..., str]
StartKernel = Callable[..., RunningKernel]


@pytest.fixture
def make_kernelspec(starter_image: Path, request: pytest.FixtureRequest) -> Iterator[MakeKernelspec]:
    """Write kernel.json files for the starter image (or another); they go with the test."""
    names: list[str] = []

    def make(config: Mapping[str, object] | None = None, **fields: Any) -> str:
        name = f"t{len(names)}-{abs(hash(request.node.nodeid)) % 10**8}"
        spec = parse_container_spec({"image": str(starter_image), **(config or {})})
        add_kernelspec(name, spec, display_name=name, debugger=True, **fields)
        names.append(name)
        return name

    yield make
    import shutil

    for name in names:
        shutil.rmtree(Path(jupyter_data_dir(), "kernels", name), ignore_errors=True)


@pytest.fixture
def start_kernel(make_kernelspec: MakeKernelspec, tmp_path: Path, mode: Mode) -> Iterator[StartKernel]:
    """Start kernels; whatever still runs at the end of the test is shut down."""
    running: list[RunningKernel] = []

    def start(
        config: Mapping[str, object] | None = None,
        *,
        cwd: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        name: str | None = None,
        manager: KernelManager | None = None,
    ) -> RunningKernel:
        km = manager or mode.build_manager()
        km.kernel_name = name or make_kernelspec(config if manager else {**mode.config, **(config or {})})
        keywords: dict[str, Any] = {"cwd": str(cwd or tmp_path)}
        if env is not None:
            keywords["env"] = dict(env)
        try:
            km.start_kernel(**keywords)
        except BaseException:
            km.cleanup_resources()
            raise
        kernel = RunningKernel(km, km.client())
        running.append(kernel)
        if manager is None:
            mode.settle(km)
        kernel.connect()
        return kernel

    yield start
    for kernel in running:
        kernel.end()


def make_joining_manager() -> KernelManager:
    """A manager whose kernels join their instance through `exec`, and are not forked in it."""
    return KernelManager(config=Config({"ApptainerConfig": {"fork_kernels": False}}))


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """The package `tinything` in two versions, each a wheel of one module."""
    for version in ("1.0", "2.0"):
        info = f"tinything-{version}.dist-info"
        with zipfile.ZipFile(tmp_path / f"tinything-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr("tinything.py", f"VERSION = {version!r}\n")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tinything\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", f"tinything.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return tmp_path


@pytest.fixture
def kernel(start_kernel: StartKernel) -> RunningKernel:
    """One kernel of the starter image."""
    return start_kernel()


@pytest.fixture(scope="module")
def shared_kernel(starter_kernel: str, tmp_path_factory: pytest.TempPathFactory, mode: Mode) -> Iterator[RunningKernel]:
    """One kernel, of a kernelspec that `kernel add` made, for all tests of a module that do not disturb it."""
    manager = mode.build_manager()
    manager.kernel_name = starter_kernel
    with preloading(starter_kernel, mode):
        manager.start_kernel(cwd=str(tmp_path_factory.mktemp("shared")))
    kernel = RunningKernel(manager, manager.client())
    try:
        mode.settle(manager)
        kernel.connect()
        yield kernel
    finally:
        kernel.end()


@contextmanager
def preloading(kernelspec: str, mode: Mode) -> Iterator[None]:
    """Have a kernelspec that others use as well say what the mode needs, while a kernel is started."""
    path = Path(jupyter_data_dir(), "kernels", kernelspec, "kernel.json")
    before = path.read_text()
    content = json.loads(before)
    content["metadata"]["kernel_provisioner"]["config"].update(mode.config)
    path.write_text(json.dumps(content))
    try:
        yield
    finally:
        path.write_text(before)


def list_entries(places: Places) -> list[LedgerEntry]:
    """The ledger as it is now."""
    return list(iter_entries(places))


def remove_overlay(kernelspec: str, places: Places) -> None:
    """Remove the overlay that `auto` has made for a kernelspec, as its owner would; it stays when the kernel is gone."""
    (path,) = places.overlays.glob(f"kernel-{kernelspec}-*.img")
    program = [sys.executable, "-m", "jupyter_apptainer.cli.main", "overlay", "remove", "-y"]
    subprocess.run([*program, path], check=True, stdin=subprocess.DEVNULL)


def drain(client: BlockingKernelClient) -> None:
    """Throw away what is on iopub already."""
    while True:
        try:
            client.get_iopub_msg(timeout=0)
        except queue.Empty:
            return
