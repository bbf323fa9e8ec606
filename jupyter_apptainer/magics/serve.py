"""A process that carries out lines: of cells in the background, and of kernels in containers, whose bridge starts it by its name."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any

from ..bridge.serving import send, serve
from ..errors import ApptainerError
from .candidates import find_candidates
from .definition_words import complete_definition
from .host import Host
from .jobs import write_answer
from .model import Answer, Request
from .own_words import run_own
from .variables import Exchange


def main() -> int:
    """Serve until standard input ends."""
    return serve(partial(_answer, Host()))


def _answer(host: Host, record: dict[str, Any]) -> dict[str, Any]:
    if "complete" in record:
        return {"candidates": _complete(host, record)}
    return _run_own(record) if record.get("is_own") else _run(host, record)


def _run_own(record: dict[str, Any]) -> dict[str, Any]:
    """Carry out what the bridge has chosen itself: a command line of ours, also where the engine has a word like it."""
    words = tuple(record["words"])
    try:
        answer = run_own(words, Request(words, None, record["cwd"], record["kernel"]), _send_text, os.environ)
    except ApptainerError as error:
        answer = Answer(2, error=error)
    return {"answer": write_answer(answer)}


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
    """`cell` of the record: a recipe up to the cursor; else words alone, for the files of this process are not those of whoever asks."""
    try:
        if record.get("cell") is not None:
            _, found = complete_definition(record["cell"]) or ("", ())
        else:
            found = find_candidates(host, record["complete"], has_files=False)
        return [(each.text, each.description) for each in found]
    except (ApptainerError, OSError):
        return []


def _send_text(stream: str, text: str) -> None:
    send({"stream": stream, "text": text})


if __name__ == "__main__":
    sys.exit(main())
