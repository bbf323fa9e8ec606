"""A process that carries out lines: of cells in the background, and of kernels in containers, whose bridge starts it by its name.

Requests come on standard input and are served one after the other; events and an answer to each go to standard output, a line of JSON
each. An interrupt ends what runs through the stop ladder, and then this process. The end of standard input means that whoever asks is
gone, and does the same.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from queue import SimpleQueue
from typing import Any

from ..errors import ApptainerError
from .candidates import find_candidates
from .host import Host
from .jobs import write_answer
from .model import Answer, Request
from .variables import Exchange


def main() -> int:
    """Serve until standard input ends."""
    # Also where a batch script has started all of us in its background, so that it is ignored.
    signal.signal(signal.SIGINT, _interrupt_once)
    requests: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    host = Host()
    try:
        while True:
            record = requests.get()
            _send({"candidates": _complete(host, record)} if "complete" in record else _run(host, record))
    except KeyboardInterrupt:
        return 130


def _interrupt_once(signum: int, frame: object) -> None:
    # Whoever interrupts also closes standard input, which counts as another: that must not cut the stop ladder short.
    signal.signal(signal.SIGINT, lambda signum, frame: None)
    raise KeyboardInterrupt


def _read_requests(requests: SimpleQueue[dict[str, Any]]) -> None:
    # The descriptor, not `sys.stdin`: its lock would keep the interpreter from ending.
    rest = b""
    while data := os.read(0, 1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            requests.put(json.loads(line))
    os.kill(os.getpid(), signal.SIGINT)


def _run(host: Host, record: dict[str, Any]) -> dict[str, Any]:
    """Carry out a line. `wanted` and `given` of the record: variables of a Python body, as JSON, by name.
    `kernel`: that of a container which asks."""
    wanted = record.get("wanted") or []
    try:
        exchange = _exchange(record) if wanted else None
        body = exchange.program if exchange else record["body"]
        request = Request(tuple(record["words"]), body, record["cwd"], record.get("kernel", ""))
        answer = host.run(request, exchange.filter(_send_text) if exchange else _send_text)
        found = exchange.unpack() if exchange else {}
    except ApptainerError as error:
        return {"answer": write_answer(Answer(2, error=error)), "found": {}}
    return {"answer": write_answer(answer), "found": found}


def _exchange(record: dict[str, Any]) -> Exchange:
    # Never as pickles, whatever is asked for: loading one runs what its maker wrote into it, and this is the host.
    names = [(name, "json") for name in record["wanted"]]
    return Exchange(names, record["body"] or "", record["given"], record["words"])


def _complete(host: Host, record: dict[str, Any]) -> list[tuple[str, str]]:
    """Words alone: the files of this process are not those of whoever asks."""
    try:
        found = find_candidates(host, record["complete"], has_files=False)
        return [(each.text, each.description) for each in found]
    except (ApptainerError, OSError):
        return []


def _send_text(stream: str, text: str) -> None:
    _send({"stream": stream, "text": text})


def _send(event: object) -> None:
    print(json.dumps(event), flush=True)


if __name__ == "__main__":
    sys.exit(main())
