"""A server in another process with one real kernel, and the command line as people run it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jupyter_apptainer.instances.janitor import sweep
from jupyter_apptainer.instances.ledger import iter_entries
from jupyter_apptainer.instances.model import LedgerEntry
from jupyter_apptainer.places import Places

PROGRAM = Path(sysconfig.get_path("scripts")) / "jupyter-apptainer"
StartServer = Callable[[], "Server"]

# One line of code in, one word out: what became of it.
_SERVER = textwrap.dedent(
    """
    import json, sys
    from jupyter_client.manager import KernelManager
    manager = KernelManager(kernel_name=sys.argv[1])
    manager.start_kernel(cwd=sys.argv[2])
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    print("ready", flush=True)
    for line in sys.stdin:
        print(client.execute(json.loads(line), reply=True, timeout=60)["content"]["status"], flush=True)
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    """
)


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `jupyter apptainer WORDS…`."""
    return subprocess.run(
        [PROGRAM, *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=120
    )


@dataclass
class Server:
    """Another process that has started a kernel, and what the ledger says of that."""

    process: subprocess.Popen[str]
    entry: LedgerEntry

    def execute(self, code: str) -> str:
        """Run a cell in its kernel and return the reply's status."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(code) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        """End it as a crash does, and before it its keeper: then nobody but the janitor ends the kernel."""
        assert self.entry.keeper is not None
        self.entry.keeper.send_signal(signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Let it shut its kernel down."""
        self.process.communicate(timeout=60)


@pytest.fixture
def start_server(starter_kernel: str, tmp_path: Path, places: Places) -> Iterator[StartServer]:
    """Start servers; they end with the test, and so does what they leave behind."""
    servers: list[Server] = []

    def start() -> Server:
        known = {entry.name for entry in iter_entries(places)}
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, starter_kernel, tmp_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        (entry,) = [entry for entry in iter_entries(places) if entry.name not in known]
        servers.append(Server(process, entry))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.end()
    sweep(places)


@pytest.fixture
def server(start_server: StartServer) -> Server:
    """One server with one kernel."""
    return start_server()
