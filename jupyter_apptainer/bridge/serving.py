"""The other side of `executor`: a process that answers records, one after the other.

Records come on standard input; events and an answer to each go to standard output, a line of JSON each. An interrupt ends what is being
answered, and then the process. The end of standard input means that whoever asks is gone, and does the same.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

Record = dict[str, Any]


def serve(
    answer: Callable[[Record], Record], *, rest: Callable[[], None] | None = None, rest_after_s: float = 0
) -> int:
    """Serve until standard input ends, and return an exit status. rest: called when nothing was asked for `rest_after_s`."""
    # Also where a batch script has started all of us in its background, so that it is ignored.
    signal.signal(signal.SIGINT, _interrupt_once)
    requests: SimpleQueue[Record] = SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    try:
        while True:
            try:
                record = requests.get(timeout=rest_after_s if rest else None)
            except Empty:
                assert rest is not None
                rest()
                record = requests.get()
            send(answer(record))
    except KeyboardInterrupt:
        return 130


def send(event: object) -> None:
    """Send an event, or an answer."""
    print(json.dumps(event), flush=True)


def _interrupt_once(signum: int, frame: object) -> None:
    # Whoever interrupts also closes standard input, which counts as another: that must not cut the stop ladder short.
    signal.signal(signal.SIGINT, lambda signum, frame: None)
    raise KeyboardInterrupt


def _read_requests(requests: SimpleQueue[Record]) -> None:
    # The descriptor, not `sys.stdin`: its lock would keep the interpreter from ending.
    rest = b""
    while data := os.read(0, 1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            requests.put(json.loads(line))
    os.kill(os.getpid(), signal.SIGINT)
