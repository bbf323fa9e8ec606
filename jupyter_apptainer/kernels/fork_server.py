"""Runs inside the container as its main process: imports what a kernel needs once, and forks a kernel for each request.

A request comes over a socket in the kernels' folder; the child becomes the kernel, as `shim` would make it, and its exit status goes back
the same way. What was imported and has changed on disk since, or must not be imported before a fork, makes the server begin anew.
Python 3.8 and newer, standard library only. `forked.py` is the other side.

    python fork_server.py SOCKET SETTINGS [OPTION OF THE SHIM]... -m ipykernel_launcher -f FILE

SETTINGS: JSON, {"preload": [module, …], "names": [variable, …] or null, "bundle": FILE or null, "is_layered": …, "rest_s": seconds}. names: the
variables that the request must agree with, where kernels with other variables share the container. bundle: see `module_bundle`. rest_s: so long after a
fork, when no other has followed, the server begins anew with nothing imported, until it is asked again; 0: never.
"""

from __future__ import annotations

import functools
import gc
import importlib.util
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Stamp = tuple[int, int, int] | None

# What a start of ipykernel imports, the last of them while it already runs. Each may be missing.
START_MODULES = (
    *("ipykernel.kernelapp", "ipykernel.ipkernel", "ipykernel.zmqshell", "psutil", "tornado.platform.asyncio"),
    *("ipykernel.debugger", "debugpy.server.api", "IPython.core.debugger", "IPython.core.oinspect", "sqlite3"),
    *("IPython.core.completerlib", "IPython.extensions.storemagic", "encodings.idna"),
    *("runpy", "faulthandler", "IPython.core.logger"),
)
# ipykernel's own choice, which Matplotlib looks up when it is imported.
BACKEND = "module://matplotlib_inline.backend_inline"
# Within that time libzmq connects again to what has come back: it tries every 0.1 to 0.2 s.
RECONNECT_S = 0.3
# Of each kernel, and nothing that a library reads when it is loaded.
OWN_NAMES = ("JPY_SESSION_NAME", "JUPYTER_APPTAINER_SOCK", "KERNEL_")
RESUME = "_JPA_FORK_SERVER"
DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri")
BACKLOG = 64
REQUEST_BYTES = 1 << 20


def load(file: str) -> types.ModuleType:
    """Load a file that lies beside this one, under a name that no notebook has."""
    name = "_jupyter_apptainer_" + file
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), file + ".py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
    return module


# --- importing


def import_start(bundle: str | None, is_layered: bool) -> None:
    """Import what a kernel needs. bundle: a file with the code of it. is_layered: what is in the image may be hidden or changed."""
    finder = open_bundle(bundle, is_layered) if bundle else None
    if finder is not None:
        sys.meta_path.insert(0, finder)
    for name in START_MODULES:
        try_import(name)
    if finder is not None:
        sys.meta_path.remove(finder)


def open_bundle(path: str, is_layered: bool) -> Any:
    """Return what finds modules in the bundle; None where it does not fit."""
    try:
        bundle = load("module_bundle").Bundle(path)
        if not bundle.is_fit():
            return None
        if is_layered:
            bundle.drop_changed()
    except (OSError, ValueError, EOFError, TypeError, LookupError):
        # Not a bundle that we know.
        return None
    return bundle


def preload(names: list[str], left_out: dict[str, str]) -> str | None:
    """Import the modules `names`; returns the one that must not be loaded before a fork.

    left_out: is told why a module was not loaded.
    """
    had_backend = "MPLBACKEND" in os.environ
    os.environ.setdefault("MPLBACKEND", BACKEND)
    try:
        for name in names:
            if name in left_out:
                continue
            error = try_import(name)
            if error:
                left_out[name] = error
                continue
            obstacle = find_obstacle()
            if obstacle:
                left_out[name] = obstacle
                return name
    finally:
        if not had_backend:
            del os.environ["MPLBACKEND"]
    # It connects itself with the shell when it is imported, and there is none yet.
    sys.modules.pop("matplotlib_inline.backend_inline", None)
    return None


def try_import(name: str) -> str:
    """Import a module; returns what was wrong."""
    try:
        __import__(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a package of the image may raise anything; it is reported
        return "it cannot be imported, " + type(error).__name__ + ": " + str(error)
    return ""


def find_obstacle() -> str:
    """Say what forbids a fork: threads that do not outlive it, or a GPU whose driver does not."""
    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if others:
        return "it starts threads when it is imported (" + ", ".join(others) + ")"
    if len(os.listdir("/proc/self/task")) > 1:
        # Threads of a library that is made for it (OpenBLAS) end before a fork and come back when they are needed.
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        if len(os.listdir("/proc/self/task")) > 1:
            return "it starts threads when it is imported"
    return "it opens a GPU when it is imported" if any(map(is_device, os.listdir("/proc/self/fd"))) else ""


def is_device(descriptor: str) -> bool:
    """Say whether an open file is a GPU."""
    try:
        return os.readlink("/proc/self/fd/" + descriptor).startswith(DEVICES)
    except OSError:
        return False


def find_changing(is_layered: bool) -> tuple[str, ...]:
    """Return the folders in which files may change: all of them, or what is mounted into an image that is read-only."""
    if is_layered:
        return ("/",)
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
            points = [line.split(" ", 5)[4] for line in stream]
    except OSError:
        return ("/",)
    # With octal numbers for spaces: such a folder is looked at as a whole.
    return tuple({point.partition("\\")[0] if "\\" in point else point + "/" for point in points if point != "/"})


@functools.lru_cache(maxsize=None)  # noqa: UP033  # not in Python 3.8
def can_change(folder: str, changing: tuple[str, ...]) -> bool:
    """Say whether files in the folder may change, links in its path followed."""
    return "/" in changing or (os.path.realpath(folder) + "/").startswith(changing)


def take_stamps(changing: tuple[str, ...]) -> dict[str, Stamp]:
    """Note which state of the files has been imported, and of those that change the search for modules."""
    found: dict[str, Stamp] = {}
    for module in list(sys.modules.values()):
        origin = getattr(getattr(module, "__spec__", None), "origin", None)
        if isinstance(origin, str) and origin.startswith("/") and can_change(os.path.dirname(origin), changing):
            found[origin] = stamp(origin)
    for folder in sys.path:
        if not can_change(folder, changing):
            continue
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            if name.endswith(".pth"):
                path = os.path.join(folder, name)
                found[path] = stamp(path)
    return found


def stamp(path: str) -> Stamp:
    """Return what changes with the file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


# --- serving


class Server:
    """Waits for requests. `running`: the sockets on which the end of each kernel is awaited, by pid."""

    def __init__(self, path: str, settings: dict[str, Any], options: list[str]) -> None:
        self.settings = settings
        self.names = settings["names"]
        self.options = options
        self.left_out: dict[str, str] = {}
        self.running: dict[int, socket.socket] = {}
        self.waiting: list[tuple[socket.socket, dict[str, Any]]] = []
        # None until everything is imported.
        self.stamps: dict[str, Stamp] | None = None
        self.has_forked = self.is_resting = False
        resumed = os.environ.pop(RESUME, None)
        if resumed is None:
            self.listener = listen(path)
        else:
            self.take_up(int(resumed))
        self.wakeup, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(self.wakeup, False)
        self.wake = wake
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        if not self.is_resting:
            self.get_ready()

    def get_ready(self) -> None:
        """Import everything."""
        # What is imported stays; looking through all of it for garbage, again and again, takes a fifth of the time.
        gc.disable()
        import_start(self.settings["bundle"], self.settings["is_layered"])
        unfit = preload(self.settings["preload"], self.left_out)
        if unfit:
            self.begin_anew()
        self.obstacle = find_obstacle()
        gc.freeze()
        gc.enable()
        self.changing = find_changing(self.settings["is_layered"])
        self.stamps = take_stamps(self.changing)

    def serve(self) -> tuple[socket.socket, dict[str, Any]]:
        """Fork kernels for ever. Returns in each child, with the request and the socket of it."""
        # A child of the server before this one may have ended meanwhile.
        self.reap()
        while True:
            while self.waiting:
                if self.stamps is None:
                    self.get_ready()
                connection, request = self.waiting.pop(0)
                if self.answer(connection, request):
                    return connection, request
            patience_s = self.settings["rest_s"] if self.has_forked else 0
            ready, _, _ = select.select([self.listener.fileno(), self.wakeup], [], [], patience_s or None)
            if not ready:
                self.begin_anew(is_resting=True)
            if self.wakeup in ready:
                self.reap()
            if self.listener.fileno() in ready:
                self.accept()

    def accept(self) -> None:
        """Take one request. It is sent before anything else is done with the connection."""
        connection, _ = self.listener.accept()
        connection.settimeout(5.0)
        try:
            request = json.loads(connection.recv(REQUEST_BYTES))
        except (OSError, ValueError):
            connection.close()
            return
        connection.settimeout(None)
        self.waiting.append((connection, request))

    def answer(self, connection: socket.socket, request: dict[str, Any]) -> bool:
        """Fork a kernel, or say why not; True in the child."""
        if self.stamps != take_stamps(self.changing):
            self.waiting.insert(0, (connection, request))
            self.begin_anew()
        reason = self.obstacle or self.compare(request)
        if not send(connection, {"left_out": self.left_out, "refused": reason}) or reason:
            connection.close()
            return False
        try:
            pid = os.fork()
        except OSError as error:
            send(connection, {"refused": "a fork failed: " + str(error)})
            connection.close()
            return False
        if pid == 0:
            self.close()
            return True
        self.running[pid] = connection
        self.has_forked = True
        return False

    def compare(self, request: dict[str, Any]) -> str:
        """Say in what the request differs from what was started: a library may have looked at it already."""
        if request["options"] != self.options:
            return "its command differs from that of the first kernel"
        if self.names is None:
            return ""
        for name in sorted({str(name) for name in (*self.names, *request["env"])}):
            if not name.startswith(OWN_NAMES) and os.environ.get(name) != request["env"].get(name):
                return "its variable " + name + " differs from that of the first kernel"
        return ""

    def reap(self) -> None:
        """Tell how kernels have ended."""
        try:
            while os.read(self.wakeup, 4096):
                pass
        except BlockingIOError:
            pass
        for pid in list(self.running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                connection = self.running.pop(pid)
                code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
                send(connection, {"ended": code})
                connection.close()

    def close(self) -> None:
        """In a child: nothing of the server's stays."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(self.wakeup)
        os.close(self.wake)
        self.listener.close()
        for connection in (*self.running.values(), *(connection for connection, _ in self.waiting)):
            connection.close()

    # --- beginning anew: the same process with another program state, so that its children stay its children

    def begin_anew(self, *, is_resting: bool = False) -> None:
        """Start this program again in this process; kernels and requests are handed on."""
        # Not needed before, and a server that rests is to be small.
        import tempfile

        state = {
            "is_resting": is_resting,
            "listener": keep(self.listener),
            # What has changed on disk may have changed for the better.
            "left_out": self.left_out if self.stamps is None else {},
            "running": [[pid, keep(connection)] for pid, connection in self.running.items()],
            "waiting": [[keep(connection), request] for connection, request in self.waiting],
        }
        with open("/proc/self/cmdline", "rb") as stream:
            words = [os.fsdecode(word) for word in stream.read().split(b"\0")[:-1]]
        # Requests hold variables, which are no business of those who list processes.
        with tempfile.TemporaryFile() as stream:
            stream.write(json.dumps(state).encode())
            stream.flush()
            os.set_inheritable(stream.fileno(), True)
            os.environ[RESUME] = str(stream.fileno())
            os.execvp(words[0], words)

    def take_up(self, descriptor: int) -> None:
        """Go on where the program before this one was."""
        with open(descriptor, "rb") as stream:
            stream.seek(0)
            state = json.loads(stream.read())
        self.listener = socket.socket(fileno=state["listener"])
        self.is_resting = state["is_resting"]
        self.left_out = state["left_out"]
        self.running = {pid: socket.socket(fileno=number) for pid, number in state["running"]}
        self.waiting = [(socket.socket(fileno=number), request) for number, request in state["waiting"]]
        for taken in (self.listener, *self.running.values(), *(connection for connection, _ in self.waiting)):
            taken.set_inheritable(False)


def listen(path: str) -> socket.socket:
    """Return a socket that is there only when it can be connected to."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    early = path + "_"
    for name in (path, early):
        if os.path.lexists(name):
            os.unlink(name)
    listener.bind(early)
    listener.listen(BACKLOG)
    os.rename(early, path)
    return listener


def keep(connection: socket.socket) -> int:
    """Have the descriptor stay open in the next program."""
    connection.set_inheritable(True)
    return connection.fileno()


def send(connection: socket.socket, message: dict[str, Any]) -> bool:
    """Send; False where nobody listens any more."""
    try:
        connection.sendall(json.dumps(message).encode())
    except OSError:
        return False
    return True


# --- in the child


def become(connection: socket.socket, request: dict[str, Any], names: list[str] | None) -> None:
    """Turn a fork into a process as `exec instance://…` would have started it, and wait for the word to go."""
    os.setsid()
    adopt_environment(request["env"], request["cwd"], names)
    redirect(request["log"])
    os.chdir(request["cwd"])
    if request["processors"]:
        os.sched_setaffinity(0, request["processors"])
    draw_seeds()
    if request["is_restart"]:
        hold_first_cell(RECONNECT_S)
    importlib.invalidate_caches()
    # Its sender's pid is seen by the receiver as the host counts. Where nobody answers, nobody wants this kernel any more.
    if not send(connection, {"kernel": os.getpid()}) or not connection.recv(16):
        os._exit(1)
    connection.close()


def adopt_environment(env: dict[str, str], cwd: str, names: list[str] | None) -> None:
    """Set what `exec` would have set."""
    if names is not None:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(env)
    for prefix in ("APPTAINER", "SINGULARITY"):
        if prefix + "_COMMAND" in os.environ:
            os.environ[prefix + "_COMMAND"] = "exec"
        if prefix + "_BIND" in os.environ:
            os.environ[prefix + "_BIND"] = ""
    os.environ["PWD"] = cwd
    os.environ.pop("OLDPWD", None)


def redirect(log: str) -> None:
    """Have what the kernel prints go to its own log."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(nothing)
    os.close(descriptor)


def hold_first_cell(seconds: float) -> None:
    """Have no cell run before clients listen again: those of the kernel before this one connect anew, each channel when it likes to.

    Else the output of a cell that is sent right after a restart would be lost. A kernel that is not forked takes longer than that by itself.
    """
    import inspect

    kernelbase = sys.modules.get("ipykernel.kernelbase")
    if kernelbase is None or not inspect.iscoroutinefunction(kernelbase.Kernel.execute_request):
        return
    begin, run = kernelbase.Kernel.__init__, kernelbase.Kernel.execute_request
    until = 0.0

    @functools.wraps(begin)
    def initialize(*arguments: Any, **keywords: Any) -> None:
        # Its sockets listen since just now.
        nonlocal until
        until = time.monotonic() + seconds
        begin(*arguments, **keywords)

    @functools.wraps(run)
    async def execute_request(*arguments: Any, **keywords: Any) -> None:
        # Not asyncio's sleep: an interrupt in the event loop itself would end the kernel.
        time.sleep(max(0.0, until - time.monotonic()))  # noqa: ASYNC251
        await run(*arguments, **keywords)

    kernelbase.Kernel.__init__ = initialize
    kernelbase.Kernel.execute_request = execute_request


def draw_seeds() -> None:
    """Draw the seeds anew that were drawn before the fork; `random` does it by itself."""
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None:
        processes.current_process().authkey = os.urandom(32)


def main() -> None:
    """Serve, and in each fork run the kernel."""
    path, settings, words = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]
    sys.path.pop(0)
    sys.modules["_jupyter_apptainer_fork_server"] = sys.modules["__main__"]
    shim = load("shim")
    sys.argv[:] = [shim.__file__ or "", *words]
    shim.install_finders()
    options = words[: len(words) - len(sys.argv) + 1]
    server = Server(path, settings, options)
    connection, request = server.serve()
    sys.argv[1:] = request["argv"]
    become(connection, request, server.names)
    shim.run_program()


if __name__ == "__main__":
    main()
