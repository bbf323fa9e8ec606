"""How server and kernel talk: sockets in a folder of ours, encrypted ports when asked for, never an open port."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from jupyter_core.paths import jupyter_config_dir

from tests.integration.conftest import TIMEOUT_S, MakeKernelspec, RunningKernel, StartKernel


def load(path: str) -> dict[str, object]:
    content = json.loads(Path(path).read_text())
    assert isinstance(content, dict)
    return content


def listening_ports(pid: int) -> set[int]:
    """Ports on which the process listens, by the inodes of its sockets."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:"):
            inodes.add(target[8:-1])
    ports = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and words[9] in inodes:
            ports.add(int(words[1].split(":")[1], 16))
    return ports


def kernel_pid(kernel: RunningKernel) -> int:
    runner = kernel.provisioner.kernel
    assert runner is not None
    found = runner.find_kernel()
    assert found is not None
    return found.pid


def test_ipc_in_a_private_folder_by_default(kernel: RunningKernel) -> None:
    connection = load(kernel.manager.connection_file)
    assert connection["transport"] == "ipc"
    folder = Path(str(connection["ip"])).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(
        stat.S_ISSOCK(Path(f"{connection['ip']}-{connection[n]}").stat().st_mode) for n in ("shell_port", "hb_port")
    )
    # One is ipykernel's own, for what forked children print (IOPubThread), as in a local kernel.
    assert len(listening_ports(kernel_pid(kernel))) <= 1


def test_the_kernel_reads_a_twin_of_the_connection_file(kernel: RunningKernel) -> None:
    runner = kernel.provisioner.kernel
    assert runner is not None
    inside = load(runner.plan.connection_file)
    outside = load(kernel.manager.connection_file)
    assert {name: inside[name] for name in ("key", "ip", "transport", "shell_port", "hb_port")} == {
        name: outside[name] for name in ("key", "ip", "transport", "shell_port", "hb_port")
    }
    assert (
        kernel.run("print(__import__('ipykernel').connect.get_connection_file())").text.strip()
        == runner.plan.connection_file
    )


def test_over_sockets_nothing_is_signed(kernel: RunningKernel) -> None:
    """A console that knows nothing but the connection file gets on as well, and nobody warns."""
    assert load(kernel.manager.connection_file)["key"] == ""
    assert kernel.client.session.auth is None
    console = BlockingKernelClient(connection_file=kernel.manager.connection_file)
    console.load_connection_file()
    console.start_channels()
    try:
        console.wait_for_ready(timeout=TIMEOUT_S)
        assert console.execute_interactive("6 * 7", timeout=TIMEOUT_S)["content"]["status"] == "ok"
    finally:
        console.stop_channels()
    runner = kernel.provisioner.kernel
    assert runner is not None
    assert not [line for line in runner.read_log() if "signing" in line]


def test_output_waits_for_a_client_that_is_late(kernel: RunningKernel) -> None:
    """As with a local kernel, where the buffers of a port take more than those of a socket. Else the word that the cell is done is lost as well."""
    cell = kernel.client.execute(
        "from IPython.display import publish_display_data\nfor n in range(6000): publish_display_data({'text/plain': str(n)})"
    )
    kernel.client.get_shell_msg(timeout=TIMEOUT_S)
    count = 0
    while (message := kernel.client.get_iopub_msg(timeout=TIMEOUT_S))["content"].get("execution_state") != "idle":
        count += message["msg_type"] == "display_data"
    assert message["parent_header"]["msg_id"] == cell
    assert count == 6000


WriteSettings = Callable[[str], None]


@pytest.fixture
def write_settings(places: object) -> Iterator[WriteSettings]:
    """Writes a user's configuration file."""
    path = Path(jupyter_config_dir(), "jupyter_apptainer_config.py")
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(text: str) -> None:
        path.write_text(text)

    yield write
    path.unlink()


def test_where_signatures_are_asked_for_the_key_is_in_no_process_list(
    write_settings: WriteSettings, start_kernel: StartKernel
) -> None:
    write_settings("c.ApptainerConfig.sign_ipc_messages = True\n")
    kernel = start_kernel()
    key = str(load(kernel.manager.connection_file)["key"]).encode()
    assert kernel.manager.session.key == key
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                assert key not in (folder / "cmdline").read_bytes()
            except OSError:
                continue
    assert kernel.value("6 * 7") == 42


@pytest.fixture
def tcp_settings(write_settings: WriteSettings) -> None:
    """A user's configuration file that asks for tcp."""
    write_settings("c.ApptainerConfig.transport = 'tcp'\n")


def test_tcp_is_encrypted(tcp_settings: None, start_kernel: StartKernel) -> None:
    kernel = start_kernel()
    connection = load(kernel.manager.connection_file)
    assert connection["transport"] == "tcp"
    assert connection["curve_publickey"]
    assert connection["key"]
    assert kernel.value("6 * 7") == 42
    ports = listening_ports(kernel_pid(kernel))
    assert {connection["shell_port"], connection["iopub_port"]} <= ports
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=TIMEOUT_S)
    assert kernel.value("6 * 7") == 42

    # Somebody without the keys gets nothing, not even what is broadcast.
    import zmq

    with zmq.Context() as context, context.socket(zmq.SUB) as stranger:
        stranger.linger = 0
        stranger.subscribe(b"")
        stranger.connect(f"tcp://127.0.0.1:{connection['iopub_port']}")
        kernel.run("print('secret')")
        assert stranger.poll(500) == 0


def test_tcp_without_encryption_is_refused(tcp_settings: None, make_kernelspec: MakeKernelspec, tmp_path: Path) -> None:
    """An ipykernel that cannot encrypt: the program exists, and is no Python that could be asked for one."""
    name = make_kernelspec({"command": ["/bin/sh", "-c", "exec python -m ipykernel_launcher -f {connection_file}"]})
    manager = KernelManager(kernel_name=name)
    with pytest.raises(RuntimeError, match="open port is never used"):
        manager.start_kernel(cwd=str(tmp_path))
    manager.cleanup_resources()


def test_a_required_encryption_is_honoured_over_ipc(start_kernel: StartKernel, make_kernelspec: MakeKernelspec) -> None:
    manager = KernelManager(transport_encryption="required")
    kernel = start_kernel(manager=manager, name=make_kernelspec(curve=True))
    assert load(manager.connection_file)["curve_publickey"]
    assert kernel.value("1") == 1


def test_a_runtime_folder_that_is_too_long_for_sockets(start_kernel: StartKernel, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(long))
        kernel = start_kernel()
        connection = load(kernel.manager.connection_file)
        assert str(connection["ip"]).startswith(f"/tmp/jpa-{os.getuid()}/")
        assert kernel.value("1") == 1


def test_a_folder_of_somebody_else_is_not_used(make_kernelspec: MakeKernelspec, tmp_path: Path) -> None:
    """A name below /tmp can be taken by anybody, for example as a link."""
    session = tmp_path / "session"
    session.mkdir(mode=0o700)
    (session / "jpa").symlink_to(tmp_path)
    manager = KernelManager(kernel_name=make_kernelspec())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(session))
        with pytest.raises(RuntimeError, match="not a folder of ours"):
            manager.start_kernel(cwd=str(tmp_path))
    manager.cleanup_resources()
