"""Requests as a hostile client would send them."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from jupyter_apptainer.bridge import request as requests
from jupyter_apptainer.bridge.model import BridgeSetup
from jupyter_apptainer.bridge.request import Request, parse_request, read_line
from jupyter_apptainer.errors import BridgeError


def test_a_request_is_read(setup: BridgeSetup) -> None:
    line = {"version": 1, "ask": "run", "words": ["exec", "x"], "stdin": "é", "cwd": "/a/../b", "wanted": ["x"]}
    found = parse_request(json.dumps(line).encode())
    assert found == Request(ask="run", words=("exec", "x"), stdin="é", cwd="/b", wanted=("x",))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"[" * 100_000,
        b'{"version": 1, "ask": "run", "words": ' + b"9" * 5000 + b"}",
        b'"run"',
        b"{}",
        b'{"version": 2, "ask": "run"}',
        b'{"version": 1}',
        b'{"version": 1, "ask": "eval"}',
        b'{"version": 1, "ask": ["run"]}',
        b'{"version": 1, "ask": "run", "words": "ls"}',
        b'{"version": 1, "ask": "run", "words": [1]}',
        b'{"version": 1, "ask": "run", "words": ["a\\u0000b"]}',
        b'{"version": 1, "ask": "run", "words": ["\\ud800"]}',
        json.dumps({"version": 1, "ask": "run", "words": ["x"] * 1001}).encode(),
        json.dumps({"version": 1, "ask": "run", "words": ["x" * 40_000]}).encode(),
        b'{"version": 1, "ask": "run", "cwd": "relative"}',
        b'{"version": 1, "ask": "run", "cwd": 7}',
        b'{"version": 1, "ask": "run", "stdin": ["x"]}',
        b'{"version": 1, "ask": "run", "stdin": "\\udc80"}',
        b'{"version": 1, "ask": "run", "wanted": "x"}',
        b'{"version": 1, "ask": "run", "given": [1]}',
    ],
    ids=range(23),
)
def test_what_is_no_request_is_refused(line: bytes) -> None:
    with pytest.raises(BridgeError):
        parse_request(line)


def test_a_line_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by its length nor by its slowness can a client hold what it connects to."""
    monkeypatch.setattr(requests, "MAX_LINE_BYTES", 100_000)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=lambda: theirs.sendall(b"x" * 200_000), daemon=True)
        sender.start()
        with pytest.raises(BridgeError, match="at most"):
            read_line(ours)
        ours.close()
        sender.join()
    monkeypatch.setattr(requests, "LINE_TIMEOUT_S", 0.1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b'{"version"')
        with pytest.raises(BridgeError, match="within"):
            read_line(ours)


def test_a_stop_that_comes_with_the_request_is_not_lost() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b'{"version": 1}\n')
        assert read_line(ours) == (b'{"version": 1}', False)
        theirs.sendall(b'{"version": 1}\n{"stop": true}\n')
        assert read_line(ours) == (b'{"version": 1}', True)


def test_a_client_that_goes_away_is_no_request() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(b'{"version": 1')
        theirs.close()
        with pytest.raises(BridgeError, match="ended"):
            read_line(ours)
