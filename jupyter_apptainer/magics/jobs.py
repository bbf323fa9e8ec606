"""`--bg`: a line that is carried out by a process of its own, which ends with the kernel, however that ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from ..errors import ApptainerError, CommandError, iter_error_classes
from .model import Answer, Request, Value


class Job:
    """A command in the background. Its output is kept; `stop` interrupts it, through the stop ladder.

    on_end: called once, from another thread, with the answer.
    """

    def __init__(self, request: Request, on_end: Callable[[Answer], None] = lambda _: None) -> None:
        self._parts: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._answer: Answer | None = None
        self._on_end = on_end
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # A cell that is interrupted is another one.
            start_new_session=True,
        )
        assert self._process.stdin is not None
        record = {"words": list(request.words), "body": request.body, "cwd": request.cwd}
        # Standard input stays open: its end tells the process that the kernel is gone.
        self._process.stdin.write(json.dumps(record) + "\n")
        self._process.stdin.flush()
        self._line = " ".join(request.words)
        self._reader = threading.Thread(target=self._read, name=f"apptainer job {self.pid}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return "".join(self._parts["stdout"])

    @property
    def stderr(self) -> str:
        """The same of standard error."""
        return "".join(self._parts["stderr"])

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._answer.returncode if self._answer else None

    @property
    def error(self) -> ApptainerError | None:
        """Why it failed."""
        return self._answer.error if self._answer else None

    def poll(self) -> int | None:
        """Return its exit status, None while it runs."""
        return self.returncode

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for its end and return its exit status. Raises TimeoutError."""
        self._reader.join(timeout_s)
        if self._answer is None:
            raise TimeoutError(f"`apptainer {self._line}` still runs after {timeout_s:g} s")
        return self._answer.returncode

    def stop(self) -> None:
        """Interrupt it; `wait` tells when it has ended."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def __repr__(self) -> str:
        state = "runs" if self._answer is None else f"exit status {self._answer.returncode}"
        return f"<apptainer {self._line}: pid {self.pid}, {state}>"

    def _read(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        answer = None
        with self._process.stdout as lines:
            for line in lines:
                event = json.loads(line)
                if "answer" in event:
                    answer = read_answer(event["answer"])
                    # It would wait for another line.
                    self._process.stdin.close()
                else:
                    self._parts[event["stream"]].append(event["text"])
        returncode = self._process.wait()
        self._process.stdin.close()
        self._answer = answer or Answer(
            returncode, self.stdout, self.stderr, error=CommandError(f"`apptainer {self._line}` was interrupted")
        )
        self._on_end(self._answer)


def write_answer(answer: Answer) -> dict[str, Any]:
    """Return its JSON form."""
    value = answer.value
    return {
        "returncode": answer.returncode,
        "stdout": answer.stdout,
        "stderr": answer.stderr,
        "value": value and {"kind": value.kind, "data": value.data, "columns": list(value.columns)},
        "error": answer.error and answer.error.to_json(),
    }


def read_answer(record: dict[str, Any]) -> Answer:
    """Make the answer of its JSON form."""
    value, error = record["value"], record["error"]
    return Answer(
        record["returncode"],
        record["stdout"],
        record["stderr"],
        value and Value(value["kind"], value["data"], tuple(tuple(column) for column in value["columns"])),
        error and read_error(error),
    )


def read_error(record: dict[str, Any]) -> ApptainerError:
    """Make the error of its JSON form."""
    cls = next((cls for cls in iter_error_classes() if cls.code == record["code"]), ApptainerError)
    return cls(
        record["message"],
        hint=record["hint"] or "",
        command=record["command"],
        returncode=record["returncode"],
        log_tail=record["log_tail"],
    )
