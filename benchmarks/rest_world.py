"""What a busy server has to look after, all real: instances with a program each, builds, and the server itself, in a folder of their own."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jupyter_apptainer.engine.environment import build_engine_environment
from jupyter_apptainer.engine.locate import EngineInfo
from jupyter_apptainer.engine.options import ContainerOptions, build_instance_start
from jupyter_apptainer.instances.janitor import end_entry
from jupyter_apptainer.instances.ledger import iter_entries, save_entry
from jupyter_apptainer.instances.model import LedgerEntry
from jupyter_apptainer.instances.process import ProcessIdentity
from jupyter_apptainer.instances.start import find_engine_folders, reap, start_instance
from jupyter_apptainer.instances.watch import DirectoryWatch
from jupyter_apptainer.places import Places, find_places
from jupyter_apptainer.tasks.stop import cancel_task
from jupyter_apptainer.tasks.store import iter_tasks

from .rest_meter import VARIABLE

TOKEN = "loopback"
BASE = "jupyter-apptainer/v1"
# Instances that come up, or go, at once.
_AT_ONCE = 4
_START_S, _END_S = 120.0, 30.0
# Nothing tells when a port begins to listen.
_LOOK_S = 0.05
# Compiles modules of the image again and again: what a build that installs packages does most.
_RECIPE = """Bootstrap: localimage
From: {image}

%post
    end=$(( $(date +%s) + {seconds} ))
    while [ $(date +%s) -lt $end ]; do python3 -m compileall -q -f /usr/lib/python3*/email /usr/local/lib/python3*/email; done
"""


class World:
    """A folder with all of it. A context manager: what was started in it is ended."""

    def __init__(self, folder: Path, engine: EngineInfo, image: Path) -> None:
        self.folder = folder
        self.environ = {
            **os.environ,
            # The builds look for the engine as well, and our own folder is another one here.
            "PATH": f"{os.path.dirname(engine.path)}:{os.environ['PATH']}",
            "JUPYTER_APPTAINER_HOME": str(folder / "home"),
            VARIABLE: str(folder / "meter"),
        }
        self.places: Places = find_places(self.environ)
        self._engine = engine
        self._image = image
        self._server: BusyServer | None = None

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.end()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for task in iter_tasks(self.places):
                pool.submit(cancel_task, self.places, task.id)
            for entry in iter_entries(self.places):
                pool.submit(end_entry, self.places, entry)

    async def start_instances(self, count: int) -> None:
        """Start instances as kernels have them."""
        gate = asyncio.Semaphore(_AT_ONCE)

        async def start(number: int) -> None:
            async with gate:
                await self._start_instance(number)

        await asyncio.gather(*map(start, range(count)))

    async def _start_instance(self, number: int) -> None:
        folders = find_engine_folders(self._engine, self.environ, self.places.hostname)
        entry = LedgerEntry(
            name=f"jpa-bench-{os.getpid()}-{number}",
            image=str(self._image),
            owner=ProcessIdentity.current(),
            kernel_id=f"{number:08x}-0000-4000-8000-000000000000",
            label=str(self.folder / f"notebook-{number}.ipynb"),
            started_at=time.time(),
            record_dir=folders.record_dir,
            log_dir=folders.log_dir,
            kernelspec="bench",
        )
        env = build_engine_environment(self.environ)
        command = build_instance_start(self._engine, str(self._image), entry.name, ContainerOptions(), env)
        started = await start_instance(command, entry, self.places, log_path=str(self.folder / f"engine-{number}.log"))
        await reap(started.process)
        init = started.instance.init
        save_entry(self.places, replace(entry, instance=started.instance, process=init, kernel=init))

    def start_server(self, builds: int) -> BusyServer:
        """Start a server that lets so many builds run at once."""
        self._server = BusyServer(self.folder, self.environ, builds)
        return self._server

    def order_builds(self, server: BusyServer, count: int, seconds: float) -> None:
        """Order builds whose main step takes so long."""
        for number in range(count):
            recipe = self.folder / f"build-{number}.def"
            recipe.write_text(_RECIPE.format(image=self._image, seconds=int(seconds)))
            args = {"recipe": {"kind": "def", "path": str(recipe)}, "target": str(self.folder / f"build-{number}.sif")}
            server.ask("POST", "tasks", {"kind": "image-build", "args": args})


@dataclass(frozen=True)
class Mark:
    """One reading of the meter."""

    path: str
    status: int
    ms: float


class BusyServer:
    """`jupyter server` with our extension and a meter."""

    def __init__(self, folder: Path, environ: Mapping[str, str], builds: int) -> None:
        self._folder, self._meter = folder, Path(environ[VARIABLE])
        config = folder / "config.py"
        config.write_text("from benchmarks.rest_meter import configure\nconfigure(c)\n")
        runtime = folder / "runtime"
        runtime.mkdir()
        root = str(Path(__file__).resolve().parent.parent)
        argv = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ServerApp.port=0"]
        argv += [f"--config={config}", f"--ApptainerExtension.max_tasks={builds}"]
        with DirectoryWatch(str(runtime)) as watch, (folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                argv,
                cwd=folder,
                env={**environ, "JUPYTER_TOKEN": TOKEN, "JUPYTER_RUNTIME_DIR": str(runtime), "PYTHONPATH": root},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            self.url = self._find_url(runtime, watch)

    def _find_url(self, runtime: Path, watch: DirectoryWatch) -> str:
        deadline = time.monotonic() + _START_S
        while self._process.poll() is None and time.monotonic() < deadline:
            for path in runtime.glob("jpserver-*.json"):
                with suppress(ValueError, OSError):
                    record = json.loads(path.read_text())
                    # The file is there a little earlier than the port listens.
                    socket.create_connection(("127.0.0.1", record["port"])).close()
                    return str(record["url"])
            select.select([watch], [], [], _LOOK_S)
            watch.drain()
        self.end()
        raise RuntimeError((self._folder / "server.log").read_text())

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Send one request to our interface, and return its answer."""
        request = urllib.request.Request(
            f"{self.url}{BASE}/{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"token {TOKEN}"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            return json.load(response)

    def count_marks(self) -> int:
        """Return how many readings there are."""
        return len(self._meter.read_text().splitlines()) if self._meter.exists() else 0

    def read_marks(self, since: int) -> list[Mark]:
        """Return what the meter has read since there were so many."""
        return [Mark(**json.loads(line)) for line in self._meter.read_text().splitlines()[since:]]

    def end(self) -> None:
        """End the server, however long it takes."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
