"""Runs inside the container, in a fork: a kernel that initialises itself before anybody has asked for it, and waits for its name.

ipykernel runs as ever, and is held in the middle: behind sockets, threads and the shell, which are the same for every kernel here, and before
what looks at the notebook's folder and runs code of the user's (`sys.path`, GUI, extensions, start-up files). What it has noted of its own until
then is replaced at the hand-over. What could not be replaced makes it end instead, and the kernel is forked as without spares.
Python 3.8 and newer, standard library only.
"""

from __future__ import annotations

import array
import importlib
import json
import os
import shutil
import socket
import stat
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .fork_modules import Stamp

CONNECTION_FILE = "connection.json"
CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
LAUNCH = ["-m", "ipykernel_launcher", "-f"]
CONFIG_NAMES = ("ipython_config", "ipython_kernel_config")
DESCRIPTORS_BYTES = 64
REQUEST_BYTES = 1 << 20
SESSION_NAME = "JPY_SESSION_NAME"


class AheadKernel:
    """What runs in the fork. folder: its own. line: to the server. child: `fork_child`. is_single: every kernel here has the variables of the container."""

    def __init__(self, folder: str, line: socket.socket, child: ModuleType, *, is_single: bool) -> None:
        self.folder = folder
        self.line = line
        self.child: Any = child
        self.is_single = is_single
        self.file = os.path.join(folder, CONNECTION_FILE)
        self.log = os.path.join(folder, "log")
        self.own_env: dict[str, str] = {}
        self.histories: list[Any] = []
        self.hold: Callable[[float], None] = lambda seconds: None

    def begin(
        self,
        modules: Any,
        known: dict[str, Stamp],
        changing: tuple[str, ...],
        sealed: dict[str, tuple[int, float]],
    ) -> list[str]:
        """Make this process a kernel's; returns its command. modules: `fork_modules`; known, sealed: what was imported before the fork."""
        self.files = SeenFiles(modules, known, changing, sealed)
        os.setsid()
        self.hide_names()
        self.child.redirect(self.log)
        os.chdir(self.folder)
        self.child.draw_seeds()
        self.write_connection()
        self.hold = self.child.hold_first_cell()
        self.set_up_wait()
        return [*LAUNCH, self.file]

    def hide_names(self) -> None:
        """Have nothing see the variables of a kernel that it is not, and what looks at its name see one that can be found again."""
        for name in list(os.environ):
            if name.startswith(self.child.OWN_NAMES):
                self.own_env[name] = os.environ.pop(name)
        os.environ[SESSION_NAME] = self.folder

    def write_connection(self) -> None:
        """Write a connection file of its own: nobody knows of these sockets."""
        ports = {name + "_port": number for number, name in enumerate(CHANNELS, 1)}
        content = {"transport": "ipc", "ip": os.path.join(self.folder, "k"), "key": os.urandom(16).hex(), **ports}
        with open(self.file, "w", encoding="utf-8") as stream:
            json.dump(content, stream)

    def set_up_wait(self) -> None:
        """Have ipykernel wait where it would first look at what is the notebook's, and make no entry in the history before."""
        application = importlib.import_module("ipykernel.kernelapp").IPKernelApp
        history = importlib.import_module("IPython.core.history").HistoryManager
        go_on, new_session = application.init_path, history.new_session

        def init_path(app: Any) -> None:
            application.init_path, history.new_session = go_on, new_session
            self.wait(app)
            go_on(app)

        application.init_path = init_path
        history.new_session = lambda manager, conn=None: self.histories.append(manager)

    # --- in the middle

    def wait(self, app: Any) -> None:
        """Wait until somebody wants this kernel, and become theirs. Ends the process where nobody does, or it does not fit."""
        if self.folder in list(app.config_file_paths) or not self.files.note(app):
            os._exit(1)
        self.line.sendall(b"ready")
        request, connection = self.receive()
        connection_info = self.read_connection(request)
        if connection_info is None or not self.files.are_same() or not self.begin_history():
            os._exit(1)
        self.line.sendall(b"taken")
        self.line.close()
        self.become(app, request, connection_info)
        if not self.child.ask_leave(connection):
            os._exit(1)
        connection.close()
        self.move_sockets(app, connection_info)
        self.hold(self.child.RECONNECT_S if request["is_restart"] else 0.0)

    def receive(self) -> tuple[dict[str, Any], socket.socket]:
        """Wait for a request and the connection of who has sent it."""
        data, ancillary, _, _ = self.line.recvmsg(REQUEST_BYTES, socket.CMSG_SPACE(DESCRIPTORS_BYTES))
        descriptors = array.array("i")
        for _, _, rights in ancillary:
            descriptors.frombytes(rights[: len(rights) - len(rights) % descriptors.itemsize])
        if not data or not descriptors:
            # The server has ended.
            os._exit(0)
        return json.loads(data), socket.socket(fileno=descriptors[0])

    def read_connection(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Return the connection that the client wants; None where this kernel cannot have it."""
        if request["argv"][:-1] != LAUNCH:
            return None
        try:
            with open(request["argv"][-1], encoding="utf-8") as stream:
                found: dict[str, Any] = json.load(stream)
        except (OSError, ValueError):
            return None
        wanted = {"ip", "key", *(name + "_port" for name in CHANNELS)}
        is_fit = found.get("transport") == "ipc" and not found.get("curve_secretkey") and wanted <= set(found)
        return found if is_fit else None

    def begin_history(self) -> bool:
        """Make the entry in the history that was left out; False where that cannot be, or its file is another one by now."""
        import sqlite3

        for manager in self.histories:
            if manager.enabled and not is_open(str(manager.hist_file)):
                return False
            try:
                manager.new_session()
            except sqlite3.Error:
                return False
        return True

    # --- the hand-over

    def become(self, app: Any, request: dict[str, Any], info: dict[str, Any]) -> None:
        """Replace everything that is this spare's own by what is the kernel's."""
        cwd, file = request["cwd"], request["argv"][-1]
        self.move_log(request["log"], file)
        os.chdir(cwd)
        names = [SESSION_NAME]
        own = {name: value for name, value in request["env"].items() if name.startswith(self.child.OWN_NAMES)}
        self.child.adopt_environment(self.own_env if self.is_single else own, cwd, names)
        self.child.run_on(request["processors"])
        importlib.invalidate_caches()
        sys.argv[:] = [file if word == self.file else word for word in sys.argv]
        sys.path[:] = [cwd if folder == self.folder else folder for folder in sys.path]
        sys.path_importer_cache.pop(self.folder, None)
        self.set_connection(app, file, info)
        self.set_shell(app.kernel.shell, cwd)

    def move_log(self, log: str, file: str) -> None:
        """Have everything that goes to this spare's log go to the kernel's, and what is in it as well."""
        sys.__stdout__.flush() if sys.__stdout__ else None
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with open(self.log, encoding="utf-8", errors="replace") as stream:
            os.write(descriptor, stream.read().replace(self.file, file).encode())
            here = os.fstat(stream.fileno())
        for name in os.listdir("/proc/self/fd"):
            try:
                other = os.fstat(int(name))
            except OSError:
                continue
            if (other.st_dev, other.st_ino) == (here.st_dev, here.st_ino):
                os.dup2(descriptor, int(name), inheritable=os.get_inheritable(int(name)))
        os.close(descriptor)

    def set_connection(self, app: Any, file: str, info: dict[str, Any]) -> None:
        """Have the application say what its client says."""
        ports = {name: info[name + "_port"] for name in CHANNELS}
        for name, port in ports.items():
            setattr(app, name + "_port", port)
        app.ip = app.heartbeat.ip = info["ip"]
        app.connection_file = file
        app.argv = [file if word == self.file else word for word in app.argv]
        for config in (app.config, getattr(app, "cli_config", {})):
            if "IPKernelApp" in config and "connection_file" in config["IPKernelApp"]:
                config["IPKernelApp"]["connection_file"] = file
        app.kernel.record_ports({name + "_port": port for name, port in ports.items()})
        app._ports = dict(ports)
        app.session.signature_scheme = info.get("signature_scheme", app.session.signature_scheme)
        app.session.key = info["key"].encode()

    def set_shell(self, shell: Any, cwd: str) -> None:
        """Have the shell know its notebook and the folder of it."""
        shell.starting_dir = cwd
        for manager in self.histories:
            manager.dir_hist[:] = [type(entry)(cwd) for entry in manager.dir_hist]
        if shell.user_ns.get("__session__") == self.folder:
            del shell.user_ns["__session__"]
            if os.environ.get(SESSION_NAME):
                shell.user_ns["__session__"] = os.environ[SESSION_NAME]

    def move_sockets(self, app: Any, info: dict[str, Any]) -> None:
        """Have the client find the sockets: from now on it can connect."""
        for number, name in enumerate(CHANNELS, 1):
            os.rename(os.path.join(self.folder, f"k-{number}"), f"{info['ip']}-{info[name + '_port']}")
        # The debugger's way to the shell: it may not have connected yet.
        inner = getattr(app, "debug_shell_socket", None)
        if inner is not None:
            inner.disconnect(inner.last_endpoint)
            inner.connect(f"ipc://{info['ip']}-{info['shell_port']}")
        shutil.rmtree(self.folder, ignore_errors=True)


class SeenFiles:
    """What this kernel has read of files, beside what was imported before the fork."""

    def __init__(
        self,
        modules: Any,
        known: dict[str, Stamp],
        changing: tuple[str, ...],
        sealed: dict[str, tuple[int, float]],
    ) -> None:
        self.modules = modules
        self.known = known
        self.changing = changing
        self.sealed = sealed
        self.stamps: dict[str, Stamp] = {}

    def note(self, app: Any) -> bool:
        """Note their state; False where code of the user's was among them, which may have looked at anything."""
        names = [name + ending for name in CONFIG_NAMES for ending in (".py", ".json")]
        files = [os.path.join(str(folder), name) for folder in app.config_file_paths for name in names]
        taken = self.modules.take_stamps(self.changing, self.sealed)
        self.stamps = {path: taken[path] for path in taken if taken[path] != self.known.get(path)}
        self.stamps.update({path: self.modules.stamp(path) for path in files})
        return not any(path.endswith(".py") and self.stamps[path] for path in files)

    def are_same(self) -> bool:
        """Say whether they are what they were."""
        return all(self.modules.stamp(path) == was for path, was in self.stamps.items())


def is_open(file: str) -> bool:
    """Say whether this process has the file open that is at this path, or none is."""
    try:
        there = os.stat(file)
    except OSError:
        return file == ":memory:"
    for name in os.listdir("/proc/self/fd"):
        try:
            here = os.fstat(int(name))
        except OSError:
            continue
        if stat.S_ISREG(here.st_mode) and (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
            return True
    return False
