"""The two places that start the engine: `Runner` for plain code, `AsyncRunner` for code on an event loop.

Both run a `Command` to its end, hand out its lines while it runs, hold it to its deadline, stop it by a ladder
(INT, TERM, KILL) and raise what `diagnose` makes of a failure. `spawn` starts one that outlives the call: a kernel.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, TypeVar

from ..errors import CommandTimeout, EngineNotFound
from .cancel import Cancelled, find_cancellation
from .command import Command, Completed, strip_ansi
from .diagnose import diagnose
from .output import Collector, OnText, Stream, open_pty
from .priority import carry_priority
from .rest import end_session

T = TypeVar("T")

# The rungs of the stop ladder: the signal, and the seconds that it is given. Interrupting a build makes the engine
# remove its temporary folder itself; the last rung waits only for the kernel to take the process away.
STOP_LADDER: tuple[tuple[signal.Signals, float], ...] = (
    (signal.SIGINT, 5.0),
    (signal.SIGTERM, 3.0),
    (signal.SIGKILL, 5.0),
)


def spawn(
    command: Command[Any],
    *,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own and return at once; the caller owns the process and reaps it.

    Raises EngineNotFound where the program is not there any more.
    """
    with _explaining_a_missing_program(command):
        return subprocess.Popen(
            command.argv,
            env=dict(command.env),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=command.cwd,
            start_new_session=True,
        )


@contextmanager
def _explaining_a_missing_program(command: Command[Any]) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, PermissionError) as error:
        # A working directory that is not there raises the same, with its own name.
        if error.filename != command.argv[0]:
            raise
        raise EngineNotFound(
            f"could not {command.title}: {command.argv[0]} cannot be started ({error.strerror})",
            command=command.render(),
        ) from error


def conclude(command: Command[T], completed: Completed) -> T:
    """Turn an ended run into its value, or raise what went wrong."""
    if completed.returncode not in command.ok_codes:
        raise diagnose(completed, title=command.title, subject=command.subject, shown=command.render())
    return command.parse(completed)


def _timed_out(command: Command[T], completed: Completed) -> CommandTimeout:
    return CommandTimeout(
        f"could not {command.title}: no end after {command.timeout_s:g} s",
        hint="try again when the machine is less busy, or allow it more time",
        command=command.render(),
        returncode=completed.returncode,
        log_tail=strip_ansi(completed.stderr).splitlines(),
    )


class Runner:
    """Runs commands from plain code. Holds no state; safe to use from several threads."""

    def run(self, command: Command[T], *, on_text: OnText | None = None, use_pty: bool = False) -> T:
        """Run `command` to its end and return its value.

        on_text: called with ("stdout" | "stderr", text) as the text comes, in this thread.
        use_pty: give it a terminal of 100 columns, so that it draws progress; all that it prints there counts as "stderr".

        Raises what `diagnose` finds in the output; CommandTimeout after `command.timeout_s` seconds; EngineNotFound where
        the program is not there.
        KeyboardInterrupt goes through the stop ladder first, and so does `Cancellation.cancel`, which raises Cancelled.
        """
        return conclude(command, self.complete(command, on_text=on_text, use_pty=use_pty))

    def complete(self, command: Command[T], *, on_text: OnText | None = None, use_pty: bool = False) -> Completed:
        """Run `command` to its end and return how it ended, whatever the exit status."""
        started = time.monotonic()
        leader, follower = open_pty() if use_pty else (-1, -1)
        collector = Collector(on_text, has_bars=use_pty)
        try:
            with _explaining_a_missing_program(command):
                process = subprocess.Popen(
                    command.argv,
                    env=dict(command.env),
                    stdin=subprocess.PIPE if command.stdin is not None else subprocess.DEVNULL,
                    stdout=follower if use_pty else subprocess.PIPE,
                    stderr=follower if use_pty else subprocess.PIPE,
                    cwd=command.cwd,
                    start_new_session=True,
                )
        except BaseException:
            if use_pty:
                os.close(leader)
            raise
        finally:
            if use_pty:
                os.close(follower)
        try:
            carry_priority(process.pid)
            self._pump(command, process, leader, collector, started)
        except _DeadlinePassed:
            self._stop(process, command.patience_s)
            raise _timed_out(command, collector.complete(command.argv, process.returncode, started)) from None
        except BaseException:
            self._stop(process, command.patience_s)
            raise
        finally:
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    with suppress(BrokenPipeError):
                        stream.close()
            if use_pty:
                os.close(leader)
        return collector.complete(command.argv, process.returncode, started)

    def _pump(
        self,
        command: Command[T],
        process: subprocess.Popen[bytes],
        leader: int,
        collector: Collector,
        started: float,
    ) -> None:
        unsent = memoryview((command.stdin or "").encode())
        with selectors.DefaultSelector() as selector:
            if process.stdout is not None:
                selector.register(process.stdout, selectors.EVENT_READ, "stdout")
            selector.register(leader if leader >= 0 else process.stderr or -1, selectors.EVENT_READ, "stderr")
            if process.stdin is not None:
                os.set_blocking(process.stdin.fileno(), False)
                selector.register(process.stdin, selectors.EVENT_WRITE, "stdin")
            cancellation = find_cancellation()
            if cancellation is not None:
                selector.register(cancellation.descriptor, selectors.EVENT_READ, "cancelled")
            while len(selector.get_map()) > (cancellation is not None):
                left = _time_left(command, started)
                if left is not None and left <= 0:
                    raise _DeadlinePassed
                for key, _ in selector.select(left):
                    if key.data == "cancelled":
                        raise Cancelled(f"nobody waits any more for the command to {command.title}")
                    if key.data == "stdin":
                        # What it prints is read in turns with this: a program need not read all before it answers.
                        unsent = _write(key.fd, unsent)
                        if not unsent and process.stdin is not None:
                            selector.unregister(process.stdin)
                            process.stdin.close()
                        continue
                    # A pty answers EIO instead of an empty read once the other side is closed.
                    try:
                        data = os.read(key.fd, 65536)
                    except OSError:
                        data = b""
                    if data:
                        collector.feed(key.data, data)
                    else:
                        selector.unregister(key.fileobj)
            try:
                process.wait(_time_left(command, started))
            except subprocess.TimeoutExpired:
                raise _DeadlinePassed from None

    def _stop(self, process: subprocess.Popen[bytes], interrupt_s: float | None) -> None:
        for signum, patience_s in _list_rungs(interrupt_s):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signum)
            try:
                process.wait(patience_s)
                break
            except subprocess.TimeoutExpired:
                continue
        end_session(process.pid)


def _list_rungs(patience_s: float | None) -> tuple[tuple[signal.Signals, float], ...]:
    """Return the ladder, without the interrupt where programs started from here ignore it. patience_s: of the interrupt.

    A batch script's `jupyter lab &` makes the server ignore it, and everything that the server starts.
    """
    first = STOP_LADDER[0] if patience_s is None else (STOP_LADDER[0][0], patience_s)
    is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    return STOP_LADDER[1:] if is_ignored else (first, *STOP_LADDER[1:])


class _DeadlinePassed(Exception):
    pass


def _time_left(command: Command[Any], started: float) -> float | None:
    return None if command.timeout_s is None else started + command.timeout_s - time.monotonic()


def _write(descriptor: int, unsent: memoryview) -> memoryview:
    """Write what fits and return the rest; nothing is left for a reader that is gone."""
    try:
        return unsent[os.write(descriptor, unsent[:65536]) :]
    except BlockingIOError:
        return unsent
    except BrokenPipeError:
        return unsent[:0]


class AsyncRunner:
    """Runs commands from code on an event loop. Holds no state."""

    async def run(self, command: Command[T], *, on_text: OnText | None = None) -> T:
        """Run `command` to its end and return its value; like `Runner.run`, but cancellation goes through the ladder."""
        return conclude(command, await self.complete(command, on_text=on_text))

    async def complete(self, command: Command[T], *, on_text: OnText | None = None) -> Completed:
        """Run `command` to its end and return how it ended, whatever the exit status."""
        started = time.monotonic()
        collector = Collector(on_text)
        with _explaining_a_missing_program(command):
            process = await asyncio.create_subprocess_exec(
                *command.argv,
                env=dict(command.env),
                stdin=subprocess.PIPE if command.stdin is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=command.cwd,
                start_new_session=True,
            )
        try:
            await asyncio.wait_for(self._pump(command, process, collector), command.timeout_s)
        except asyncio.TimeoutError:
            await self._stop(process, command.patience_s)
            returncode = process.returncode if process.returncode is not None else -signal.SIGKILL
            raise _timed_out(command, collector.complete(command.argv, returncode, started)) from None
        except BaseException:
            await asyncio.shield(self._stop(process, command.patience_s))
            raise
        assert process.returncode is not None
        return collector.complete(command.argv, process.returncode, started)

    async def _pump(self, command: Command[T], process: asyncio.subprocess.Process, collector: Collector) -> None:
        async def drain(name: Stream, reader: asyncio.StreamReader | None) -> None:
            assert reader is not None
            while data := await reader.read(65536):
                collector.feed(name, data)

        if process.stdin is not None and command.stdin is not None:
            process.stdin.write(command.stdin.encode())
            process.stdin.close()
        await asyncio.gather(drain("stdout", process.stdout), drain("stderr", process.stderr))
        await process.wait()

    async def _stop(self, process: asyncio.subprocess.Process, interrupt_s: float | None) -> None:
        for signum, patience_s in _list_rungs(interrupt_s):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signum)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), patience_s)
                break
        await asyncio.to_thread(end_session, process.pid)
        if process.stdin is not None and process.stdin.transport.get_write_buffer_size():
            # What could not be written would keep the pipe open until the loop is closed.
            process.stdin.transport.abort()
