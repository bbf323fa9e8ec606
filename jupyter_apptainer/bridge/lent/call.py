"""One request to the host: a connection of its own, what comes back on it as it comes, and how it ended."""

# ruff: noqa: UP006, UP035, UP045 - the image's Python may be older than ours
from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
from typing import Any, Callable, Dict, Iterator, List, Optional

VERSION = 1
VARIABLE = "JUPYTER_APPTAINER_SOCK"
MAX_KEPT = 16 * 1024 * 1024
_CONNECT_S = 10

OnText = Callable[[str, str], None]


class ApptainerError(Exception):
    """What went wrong, for people; `code` and `returncode` are for programs."""

    def __init__(
        self, message: str, hint: Optional[str] = None, code: str = "bridge-error", returncode: int = 1, log: Any = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.returncode = returncode
        self.log_tail = tuple(log)

    def __str__(self) -> str:
        return self.message + ("\nHint: " + self.hint if self.hint else "")

    def _render_traceback_(self) -> List[str]:
        """Called by IPython: where in this file it was raised helps nobody."""
        return [f"{type(self).__name__}: {self}"]


class SpecError(ApptainerError):
    """The line is wrong before anything runs."""

    def __init__(self, message: str, hint: Optional[str] = None) -> None:
        super().__init__(message, hint, "spec-invalid", 2)


class Answer:
    """How a request ended. value: what it gave, None for text. variables: those that were asked for. stdout, stderr: what was
    printed, as far as it was kept. As the result of a line it shows nothing: its output has been shown already."""

    def __init__(self, end: Dict[str, Any], stdout: str, stderr: str) -> None:
        self.returncode = int(end.get("code", 1))
        self.error = _read_error(end.get("error"), self.returncode)
        self.value = end.get("value")
        self.variables: Dict[str, Any] = end.get("variables") or {}
        self.stdout = stdout
        self.stderr = stderr

    def check(self) -> Answer:
        """Raise what the host reports."""
        if self.error is not None:
            raise self.error
        return self

    def __repr__(self) -> str:
        return f"<exit status {self.returncode}, {len(self.stdout)} + {len(self.stderr)} characters printed>"

    def _ipython_display_(self) -> None:
        """Called by IPython at the end of a cell."""


def _read_error(error: Optional[Dict[str, Any]], returncode: int) -> Optional[ApptainerError]:
    if error is None:
        return None
    return ApptainerError(error["message"], error.get("hint"), error["code"], returncode, error.get("log_tail") or ())


class Call:
    """One request on a connection of its own. `stop` may be called from another thread, or by an interrupt."""

    def __init__(self, ask: str, **fields: Any) -> None:
        path = os.environ.get(VARIABLE, "")
        if not path:
            raise ApptainerError(
                "this kernel has no bridge to the host", "its kernel.json, or a policy, says `bridge: off`"
            )
        line = json.dumps(dict(fields, version=VERSION, ask=ask)).encode() + b"\n"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._kept: Dict[str, List[str]] = {"stdout": [], "stderr": []}
        self._size = 0
        try:
            # A timeout of Python's own would make `connect` give up at once where many others wait.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _CONNECT_S, 0))
            self._socket.connect(path)
            # Who is refused at the door has an answer to read all the same.
            with contextlib.suppress(BrokenPipeError):
                self._socket.sendall(line)
        except BlockingIOError:
            self._socket.close()
            raise ApptainerError("the host does not answer", "is the Jupyter server stopped or very busy?") from None
        except OSError as error:
            self._socket.close()
            raise ApptainerError(
                f"the host is out of reach: {error}",
                "this kernel's server is gone; the bridge is back when a server has taken the kernel over",
            ) from None

    def stop(self) -> None:
        """Have the host stop what runs; the answer then comes as soon as that has ended."""
        # It may have ended already.
        with contextlib.suppress(OSError):
            self._socket.sendall(b'{"stop": true}\n')

    def get_text(self, stream: str) -> str:
        """Return what "stdout" or "stderr" has had so far."""
        return "".join(self._kept[stream])

    def finish(self, on_text: Optional[OnText] = None, timeout_s: Optional[float] = None) -> Answer:
        """Wait for the end. KeyboardInterrupt stops what runs, and is raised when that has ended."""
        is_interrupted = False
        lines = self._iter_records(timeout_s)
        while True:
            try:
                record = next(lines)
                if "end" in record:
                    answer = Answer(record["end"], self.get_text("stdout"), self.get_text("stderr"))
                    self._socket.close()
                    if is_interrupted:
                        raise KeyboardInterrupt
                    return answer
                for stream, text in record.items():
                    self._keep(stream, text)
                    if on_text is not None and not is_interrupted:
                        on_text(stream, text)
            except KeyboardInterrupt:
                if is_interrupted or self._socket.fileno() < 0:
                    # The second one, or the one that was raised above.
                    self._socket.close()
                    raise
                is_interrupted = True
                self.stop()
                # A generator that an exception went through is at its end.
                lines = self._iter_records(timeout_s)
            except BaseException:
                self._socket.close()
                raise

    _rest = b""

    def _iter_records(self, timeout_s: Optional[float]) -> Iterator[Dict[str, Any]]:
        while True:
            head, newline, tail = self._rest.partition(b"\n")
            if newline:
                self._rest = tail
                yield json.loads(head.decode())
                continue
            if not select.select([self._socket], [], [], timeout_s)[0]:
                raise ApptainerError("the host did not answer in time")
            data = self._socket.recv(65536)
            if not data:
                raise ApptainerError(
                    "the host has closed the connection", "the Jupyter server's log says why, if it is not gone"
                )
            self._rest += data

    def _keep(self, stream: str, text: str) -> None:
        self._size += len(text)
        if self._size <= MAX_KEPT and stream in self._kept:
            self._kept[stream].append(text)
