"""A library server on the loopback, as far as the engine asks one for an image: no package of Debian has a real one.

https://github.com/apptainer/container-library-client
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# The engine takes no port in what `remote add` is given.
_REMOTE = """\
Active: here
Remotes:
    here:
        URI: //{host}
        System: false
        Exclusive: false
        Insecure: true
"""


@contextmanager
def serve_library(image: Path, name: str, config: Path) -> Iterator[str]:
    """Serve an image as `library://NAME` and have an engine with this folder for its settings use it; give HOST:PORT."""
    content = image.read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.endswith("/config.prod.json"):
                services = {name: {"uri": f"http://{host}"} for name in ("libraryAPI", "keystoreAPI")}
                self._answer(json.dumps(services).encode())
            elif path == "/version":
                self._answer(json.dumps({"data": {"version": "1.0.0", "apiVersion": "1.0.0"}}).encode())
            elif path == f"/v1/images/{name}":
                self._answer(json.dumps({"data": _describe(content)}).encode())
            elif path == f"/v1/imagefile/{name}":
                self._answer(content)
            else:
                self._answer(b'{"error": {"code": 404, "message": "not found"}}', 404)

        def _answer(self, body: bytes, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    host = f"127.0.0.1:{server.server_address[1]}"
    config.mkdir(parents=True)
    (config / "remote.yaml").write_text(_REMOTE.format(host=host))
    (config / "remote.yaml").chmod(0o600)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()


def _describe(content: bytes) -> Mapping[str, object]:
    digest = f"sha256.{hashlib.sha256(content).hexdigest()}"
    return {"hash": digest, "size": len(content), "uploaded": True, "arch": "amd64"}
