"""Runs inside the container as its main process: imports what a kernel needs once, and forks a kernel for each request.

A request comes over a socket in the kernels' folder; the child becomes the kernel, as `shim` would make it, and its exit status goes back
the same way. What was imported and has changed on disk since, or must not be imported before a fork, makes the server begin anew.
Python 3.8 and newer, standard library only. `forked.py` is the other side.

Begun by `fork_begin.py`, with two words more in front:

    SOCKET SETTINGS [OPTION OF THE SHIM]... -m ipykernel_launcher -f FILE

SETTINGS: JSON, {"preload": [module, …], "names": [variable, …] or null, "rest_s": seconds, "spares": {…} or null}. names: the variables that the
request must agree with, where kernels with other variables share the container.
rest_s: so long after a fork, when no other has followed, the server leaves its process to a shell, which begins anew when the bell is rung
(`SOCKET_bell`); 0: never. spares: see `fork_spares`; null: none.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

BACKLOG = 64
# A shell takes a tenth of what the smallest Python does. Others than these reap a child that they have not started as soon as it ends,
# and so take away how a kernel has ended.
SHELL, FIT_SHELLS = "/bin/sh", ("dash", "busybox")
SLEEP = 'read -r _; exec "$@" </dev/null'
REQUEST_BYTES = 1 << 20


if TYPE_CHECKING:
    from collections.abc import Callable

    from . import fork_child, fork_modules, shim
    from .fork_begin import NONE, RESUME, UNKNOWN, load, open_bundle
else:
    begin = sys.modules["_jupyter_apptainer_fork_begin"]
    NONE, RESUME, UNKNOWN, load, open_bundle = begin.NONE, begin.RESUME, begin.UNKNOWN, begin.load, begin.open_bundle
    fork_child, fork_modules, shim = load("fork_child"), load("fork_modules"), load("shim")


class Layers:
    """What of the container is as in the image, and the bundle. early: it, where it is open already."""

    def __init__(self, bundle: str, layers: str, early: Any) -> None:
        self.bundle, self.layers, self.early = bundle, layers, early
        self.is_layered = layers != NONE
        self.is_known = layers not in (NONE, UNKNOWN)

    def open_bundle(self) -> Any:
        """Return what finds modules in the bundle; None where there is none that fits."""
        early, self.early = self.early, None
        return early or open_bundle(self.bundle, self.layers, is_first=False)


class Server:
    """Waits for requests. `running`: the sockets on which the end of each kernel is awaited, by pid. `watching`: those of who waits for spares."""

    def __init__(self, path: str, settings: dict[str, Any], options: list[str], layers: Layers) -> None:
        self.bell = path + "_bell"
        self.settings = settings
        self.names = settings["names"]
        self.options = options
        self.left_out: dict[str, str] = {}
        self.running: dict[int, socket.socket] = {}
        self.waiting: list[tuple[socket.socket, dict[str, Any]]] = []
        # None until everything is imported.
        self.stamps: dict[str, fork_modules.Stamp] | None = None
        self.sealed: dict[str, tuple[int, float]] = {}
        self.spares: Any = None
        self.watching: list[socket.socket] = []
        self.rests_at: float | None = None
        # has_rested: this is not the first program here. is_resting: it waits with its imports for who needs them.
        self.has_rested = self.is_resting = False
        resumed = os.environ.pop(RESUME, None)
        # Nobody else can have changed files: where the host knows that they are those of the image, until there is a kernel. One that shares the
        # container may have joined it in another way.
        self.is_alone = resumed is None and layers.is_known and self.names is None
        self.layers = layers
        if resumed is None:
            if settings["rest_s"] and not os.path.lexists(self.bell):
                os.mkfifo(self.bell, 0o600)
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
        if self.has_rested:
            # Whoever has rung the bell may have thought better of it.
            self.plan_rest()

    def get_ready(self) -> None:
        """Import everything."""
        # What is imported stays; looking through all of it for garbage, again and again, takes a fifth of the time.
        gc.disable()
        bundle = self.layers.open_bundle()
        fork_modules.import_start(bundle, shim.defer_debugger)
        unfit = fork_modules.preload(self.settings["preload"], self.left_out)
        if unfit:
            self.begin_anew()
        self.obstacle = fork_modules.find_obstacle()
        gc.freeze()
        gc.enable()
        if self.settings["spares"] and not self.obstacle:
            is_first = not self.running and not self.has_rested
            folder = os.path.dirname(self.listener.getsockname())
            self.spares = load("fork_spares").Spares(folder, self.settings["spares"], is_first=is_first)
        self.changing = fork_modules.find_changing(self.layers.is_layered)
        self.sealed = bundle.list_stamps(bundle.plain) if bundle and self.layers.is_layered else {}
        self.stamps = fork_modules.take_stamps(self.changing, self.sealed)

    def has_changed(self) -> bool:
        """Say whether something else would be imported now."""
        if self.is_alone:
            return False
        return self.stamps != fork_modules.take_stamps(self.changing, self.sealed) or fork_modules.have_changed(
            self.sealed
        )

    def serve(self) -> Callable[[], list[str]]:
        """Fork kernels for ever. Returns in each child: a function that makes it what it shall be, and returns the command that it is to run."""
        # A child of the server before this one may have ended meanwhile.
        self.reap()
        while True:
            while self.waiting:
                if self.stamps is None:
                    self.is_resting = False
                    self.get_ready()
                connection, request = self.waiting.pop(0)
                if self.answer(connection, request):
                    return lambda: fork_child.become(connection, request, self.names)
            spare = self.spares.fork() if self.spares else None
            if spare:
                self.close()
                return lambda: self.begin_spare(spare)
            self.tell_watching()
            self.wait()

    def wait(self) -> None:
        """Wait until there is something to do, and do it."""
        times = [] if self.rests_at is None else [max(0.0, self.rests_at - time.monotonic())]
        lines = []
        if self.spares:
            lines = self.spares.list_lines()
            wait_s = self.spares.find_wait()
            times += [] if wait_s is None else [wait_s]
        ready, _, _ = select.select([self.listener, self.wakeup, *lines], [], [], min(times) if times else None)
        if self.wakeup in ready:
            self.reap()
        if self.listener in ready:
            self.accept()
        if self.spares:
            self.spares.look()
        if not ready and self.rests_at is not None and self.rests_at <= time.monotonic():
            self.rest()

    def begin_spare(self, spare: Any) -> list[str]:
        """Become a kernel that waits for who wants it."""
        ahead = load("fork_spare").AheadKernel(spare.folder, spare.line, fork_child, is_single=self.names is None)
        command: list[str] = ahead.begin(fork_modules, self.stamps, self.changing, self.sealed)
        return command

    def tell_watching(self) -> None:
        """Tell those who wait for spares that there are all that there will be."""
        if not self.spares or self.spares.is_settled:
            for connection in self.watching:
                send(connection, {"refused": "everything is ready"})
                connection.close()
            self.watching.clear()

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
        self.is_alone = self.is_alone and not request.get("is_restart")
        if self.has_changed():
            self.waiting.insert(0, (connection, request))
            self.begin_anew()
        if request["options"] is None:
            self.watching.append(connection)
            return False
        reason = self.obstacle or self.compare(request)
        if not send(connection, {"left_out": self.left_out, "refused": reason}) or reason:
            connection.close()
            # It joins the container in another way.
            self.is_alone = False
            return False
        pid = self.spares.hand_over(connection, request) if self.spares else 0
        try:
            pid = pid or os.fork()
        except OSError as error:
            send(connection, {"refused": "a fork failed: " + str(error)})
            connection.close()
            return False
        if pid == 0:
            self.close()
            return True
        self.running[pid] = connection
        self.is_alone = False
        self.note_kernel()
        return False

    def note_kernel(self) -> None:
        """There is another one."""
        self.plan_rest()
        if self.spares:
            self.spares.note_kernel()

    def plan_rest(self) -> None:
        """Rest when nobody else comes."""
        rest_s = self.settings["rest_s"]
        self.rests_at = time.monotonic() + rest_s if rest_s and not self.is_resting else None

    def compare(self, request: dict[str, Any]) -> str:
        """Say in what the request differs from what was started: a library may have looked at it already."""
        if request["options"] != self.options:
            return "its command differs from that of the first kernel"
        if self.names is None:
            return ""
        for name in sorted({str(name) for name in (*self.names, *request["env"])}):
            if not name.startswith(fork_child.OWN_NAMES) and os.environ.get(name) != request["env"].get(name):
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
            try:
                ended, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                # The shell has reaped it when the bell was rung, and who rings has seen how it ended.
                self.running.pop(pid).close()
                continue
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
        for connection in (*self.running.values(), *self.watching, *(connection for connection, _ in self.waiting)):
            connection.close()
        if self.spares:
            self.spares.close()

    # --- beginning anew: the same process with another program state, so that its children stay its children

    def rest(self) -> None:
        """Begin anew with nothing imported, and where there is a fit shell only when the bell is rung. Returns where there is something to do."""
        if os.path.basename(os.path.realpath(SHELL)) not in FIT_SHELLS or not os.path.exists(self.bell):
            self.begin_anew(is_resting=True)
        # Both ends: else it would wait for somebody who rings.
        bell = os.open(self.bell, os.O_RDWR)
        # Who has connected before that has found no bell to ring.
        if not select.select([self.listener.fileno(), self.wakeup], [], [], 0)[0]:
            os.dup2(bell, 0)
            self.begin_anew(SHELL, "-c", SLEEP, SHELL, is_resting=True)
        os.close(bell)

    def begin_anew(self, *before: str, is_resting: bool = False) -> None:
        """Start this program again in this process; kernels and requests are handed on. before: words that come before its own."""
        # Not needed before.
        import tempfile

        if self.spares:
            self.spares.clear()
        state = {
            "has_rested": is_resting,
            # A shell waits in its place.
            "is_resting": is_resting and not before,
            # Of a shell, some would not come back.
            "environ": dict(os.environ),
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
            os.execvp((*before, *words)[0], (*before, *words))

    def take_up(self, descriptor: int) -> None:
        """Go on where the program before this one was."""
        with open(descriptor, "rb") as stream:
            stream.seek(0)
            state = json.loads(stream.read())
        self.listener = socket.socket(fileno=state["listener"])
        self.has_rested, self.is_resting = state["has_rested"], state["is_resting"]
        os.environ.clear()
        os.environ.update(state["environ"])
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


def main(bundle: Any) -> None:
    """Serve, and in each fork run the kernel. bundle: where it is open already, and still as it was opened."""
    layers = Layers(sys.argv[1], sys.argv[2], bundle)
    path, settings, words = sys.argv[3], json.loads(sys.argv[4]), sys.argv[5:]
    sys.argv[:] = [shim.__file__ or "", *words]
    shim.install_finders()  # type: ignore[no-untyped-call]  # Python 2.7 has no annotations
    options = words[: len(words) - len(sys.argv) + 1]
    server = Server(path, settings, options, layers)
    begin = server.serve()
    sys.argv[1:] = begin()
    shim.run_program()  # type: ignore[no-untyped-call]  # as above
