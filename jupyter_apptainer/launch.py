"""The launch door: `python -m jupyter_apptainer.launch --kernel DIR -f CONNECTION_FILE`.

It stands as `argv` in every kernel.json of ours, for clients that start kernels themselves and ignore provisioners (VS Code,
Positron, nteract, jupyverse, Zed). Same plan and same guarantees as the provisioner: signals are forwarded to the kernel exactly
once, and the door ends with its kernel or with its client, leaving nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .config import ApptainerConfig, load_config
from .errors import ApptainerError, SpecError
from .instances.janitor import sweep
from .instances.watch import wait_readable, watch_exit
from .kernels.container import ContainerKernel
from .kernels.notebook import find_notebook
from .kernels.prepare import Preparation, prepare_launch
from .places import find_places

# What a kernel that was asked to end is given before it is ended.
_PATIENCE_S = 5.0
_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one kernel to its end; returns its exit status, 128 + N where signal N ended it, 1 where it could not start."""
    parser = argparse.ArgumentParser(prog="python -m jupyter_apptainer.launch", description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", required=True, metavar="DIR", help="folder of the kernel.json")
    parser.add_argument("-f", dest="connection_file", required=True, metavar="FILE", help="Jupyter's connection file")
    options, extra = parser.parse_known_args(argv)
    try:
        return asyncio.run(_run(Path(options.kernel), Path(options.connection_file), extra))
    except ApptainerError as error:
        print(error.render(), file=sys.stderr)
        return 1


async def _run(folder: Path, connection_file: Path, extra: list[str]) -> int:
    kernel_json = _load(folder / "kernel.json", "the kernel's description")
    connection = _load(connection_file, "the connection file")
    await asyncio.to_thread(sweep, find_places())
    settings = ApptainerConfig(config=load_config())
    environ = dict(os.environ)
    declared = kernel_json.get("env", {})
    preparation = await asyncio.to_thread(
        lambda: prepare_launch(
            kernel_json.get("metadata", {}).get("kernel_provisioner", {}).get("config", {}),
            settings=settings,
            kernel_id=str(connection.get("kernel_id") or uuid.uuid4()),
            cwd=os.getcwd(),
            environ=environ,
            base_dir=str(folder.absolute()),
            # The client has put these into our environment already, with its own substitutions.
            kernelspec_env={name: environ.get(name, value) for name, value in declared.items()},
            extra_arguments=extra,
            notebook=find_notebook(environ, environ),
            on_progress=lambda text: print(text, file=sys.stderr, flush=True),
        )
    )
    for warning in preparation.plan.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    kernel = ContainerKernel(
        preparation.plan,
        places=preparation.places,
        folders=preparation.folders,
        environ=os.environ,
        label=environ.get("JPY_SESSION_NAME") or kernel_json.get("display_name", ""),
        kernelspec=folder.absolute().name,
        start_files=preparation.probe.start_files if preparation.probe and settings.read_ahead else (),
    )
    return await _serve(kernel, connection, settings.start_timeout_s, lambda: _unpack_image(preparation, settings))


def _unpack_image(preparation: Preparation, settings: ApptainerConfig) -> None:
    if preparation.plan.unpacked_note:
        # Loaded only where it is wished for, as in `prepare`.
        from .kernels.unpacking import start_unpacking

        start_unpacking(preparation, settings, _log)


async def _serve(
    kernel: ContainerKernel, connection: dict[str, Any], timeout_s: float, on_start: Callable[[], None]
) -> int:
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    loop.add_signal_handler(signal.SIGINT, kernel.send_signal, signal.SIGINT)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(signum, ending.set)
    client = asyncio.create_task(_wait_client_gone(ending))
    start = asyncio.create_task(kernel.start(connection, timeout_s=timeout_s))
    asked = asyncio.create_task(ending.wait())
    try:
        await asyncio.wait({start, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not start.done():
            return 128 + signal.SIGTERM
        await start
        on_start()
        end = asyncio.create_task(kernel.wait())
        await asyncio.wait({end, asked}, return_when=asyncio.FIRST_COMPLETED)
        if client.done() and not end.done() and kernel.plan.persist is not False:
            end.cancel()
            return 0
        if not end.done():
            kernel.send_signal(signal.SIGTERM)
            await asyncio.wait({end}, timeout=_PATIENCE_S)
            kernel.kill()
        returncode = await end
        _print_log(kernel)
        return 128 - returncode if returncode < 0 else returncode
    finally:
        outlives = client.done() and kernel.plan.persist is not False and kernel.poll() is None
        for task in (start, asked, client):
            task.cancel()
        await asyncio.gather(start, asked, client, return_exceptions=True)
        if outlives:
            kernel.leave()
        else:
            await kernel.stop()


async def _wait_client_gone(ending: asyncio.Event) -> None:
    """A client that dies without a word takes its kernel along, unless that persists."""
    parent = os.getppid()
    if parent == 1:
        return
    with watch_exit(parent) as gone:
        while os.getppid() == parent:
            await wait_readable([gone], 60.0)
    ending.set()


def _print_log(kernel: ContainerKernel) -> None:
    """What the kernel's process itself printed belongs to the client, as with a local kernel."""
    for line in kernel.read_log():
        print(line, file=sys.stderr)


def _load(path: Path, what: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise SpecError(f"cannot read {what} {path}: {error.strerror}") from error
    except ValueError as error:
        raise SpecError(f"{what} {path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise SpecError(f"{what} {path} is not a JSON object")
    return content


if __name__ == "__main__":
    sys.exit(main())
