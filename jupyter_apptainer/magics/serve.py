"""The process of a line in the background: a request on standard input, events and an answer on standard output, a line of JSON each.

The end of standard input means that the kernel is gone: then it ends as an interrupt would end it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading

from .host import Host
from .jobs import write_answer
from .model import Request


def main() -> int:
    """Carry out one request."""
    record = json.loads(sys.stdin.readline())
    request = Request(tuple(record["words"]), record["body"], record["cwd"])
    threading.Thread(target=_end_with_the_kernel, daemon=True).start()
    try:
        answer = Host().run(request, lambda stream, text: _send({"stream": stream, "text": text}))
    except KeyboardInterrupt:
        return 130
    _send({"answer": write_answer(answer)})
    return 0


def _end_with_the_kernel() -> None:
    # The descriptor, not `sys.stdin`: its lock would keep the interpreter from ending.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGINT)


def _send(event: object) -> None:
    print(json.dumps(event), flush=True)


if __name__ == "__main__":
    sys.exit(main())
