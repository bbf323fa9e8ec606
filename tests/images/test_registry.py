"""Asking a registry that wants a token, as the large public ones do; docker-registry alone has no server of tokens.

The stand-in also does what no registry should: it sends the asker elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from jupyter_apptainer.errors import RegistryError
from jupyter_apptainer.images.reference import parse_reference
from jupyter_apptainer.images.registry import Access, RemoteImage, check_credentials, is_loopback, resolve

MANIFEST = json.dumps({"layers": [{"mediaType": "application/vnd.sylabs.sif.layer.v1.sif", "size": 5}]}).encode()
DIGEST = "sha256:" + hashlib.sha256(MANIFEST).hexdigest()
ADA = "Basic " + base64.b64encode(b"ada:tide").decode()


@dataclass
class Server:
    """host: as a name has it. seen: path and Authorization of each request."""

    host: str = ""
    seen: list[tuple[str, str]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            authorization = self.headers.get("Authorization", "")
            found.seen.append((self.path, authorization))
            if self.path.startswith("/token"):
                is_known = authorization in (ADA, "")
                self._answer(200 if is_known else 401, json.dumps({"token": f"for {authorization}"}).encode())
            elif self.path.endswith("/moved"):
                self._answer(307, b"", {"Location": f"http://{found.host}/elsewhere"})
            elif authorization != f"Bearer for {ADA}":
                challenge = f'Bearer realm="http://{found.host}/token",service="tests"'
                self._answer(401, b"{}", {"WWW-Authenticate": challenge})
            elif self.path.endswith("/lying"):
                self._answer(200, MANIFEST, {"Docker-Content-Digest": "sha256:" + "00" * 32})
            else:
                self._answer(200, MANIFEST, {"Docker-Content-Digest": DIGEST})

        def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        found.host = f"127.0.0.1:{listener.server_port}"
        thread = threading.Thread(target=listener.serve_forever, daemon=True)
        thread.start()
        yield found
        listener.shutdown()
        thread.join()


def test_token_is_fetched_with_the_password_and_the_scope(server: Server) -> None:
    reference = parse_reference(f"oras://{server.host}/lab/tools:1")
    assert resolve(reference, Access(credentials=("ada", "tide"))) == RemoteImage(DIGEST, 5)
    paths = [path for path, _ in server.seen]
    assert paths == [
        "/v2/lab/tools/manifests/1",
        "/token?service=tests&scope=repository%3Alab%2Ftools%3Apull",
        "/v2/lab/tools/manifests/1",
    ]
    assert [authorization for _, authorization in server.seen] == ["", ADA, f"Bearer for {ADA}"]


@pytest.mark.parametrize("tag", ["moved", "lying"])
def test_answer_that_cannot_be_trusted_is_none(server: Server, tag: str) -> None:
    access = Access(credentials=("ada", "tide"))
    assert resolve(parse_reference(f"docker://{server.host}/lab/tools:{tag}"), access) is None
    assert not [path for path, _ in server.seen if "elsewhere" in path]


def test_stranger_is_told_nothing(server: Server) -> None:
    assert resolve(parse_reference(f"docker://{server.host}/lab/tools:1"), Access()) is None
    with pytest.raises(RegistryError, match="password of eve"):
        check_credentials(server.host, Access(credentials=("eve", "guess")))
    check_credentials(server.host, Access(credentials=("ada", "tide")))


def test_password_is_in_no_text() -> None:
    assert "tide" not in repr(Access(credentials=("ada", "tide")))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("[::1]:5000", True),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
        ("10.0.0.1:5000", False),
    ],
)
def test_loopback_is_told_from_names_that_look_like_it(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
