"""A real image registry on the loopback, a proxy that breaks connections off, and a small OCI image to send through them.

The registry is the distribution's own docker-registry; tools/setup-machine.sh sees to it. It is started for the tests alone,
on a port that Linux chooses, and ended by its pid.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import tarfile
import threading
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
USER, PASSWORD = "ada", "tide-and-shore"
# The registry reads bcrypt only, which Python cannot make everywhere.
_HTPASSWD = f"{USER}:$2b$05$YCuvRm/4tU.4qfr.VDDzWe8Ay3XPxO6PXlg3T8SeUqNv60Ksb3xLy\n"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def find_program() -> str:
    """Return the registry's program: the system's, or the one that tools/setup-machine.sh has unpacked."""
    found = shutil.which("docker-registry", path="/usr/local/bin:/usr/bin:" + str(ROOT / "out/registry/usr/bin"))
    assert found, "docker-registry is missing: tools/setup-machine.sh gets it"
    return found


@dataclass
class Registry:
    """A running registry. host: as an image's name has it, 127.0.0.1:PORT. certificate: of its own authority, if it has TLS."""

    process: subprocess.Popen[str]
    host: str
    certificate: Path | None = None

    @property
    def port(self) -> int:
        return int(self.host.rpartition(":")[2])

    def end(self) -> None:
        """End it by its pid."""
        self.process.terminate()
        self.process.wait(10)
        assert self.process.stderr is not None
        self.process.stderr.close()


def start_registry(folder: Path, storage: Path, *, has_tls: bool = False, has_password: bool = False) -> Registry:
    """Start a registry that keeps its images in `storage`, and return when it listens."""
    folder.mkdir(parents=True)
    http: dict[str, Any] = {"addr": "127.0.0.1:0"}
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}},
        "http": http,
    }
    certificate = None
    if has_tls:
        certificate = make_certificate(folder)
        http["tls"] = {"certificate": str(certificate), "key": str(folder / "key.pem")}
    if has_password:
        (folder / "htpasswd").write_text(_HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
    # JSON is YAML.
    (folder / "config.yml").write_text(json.dumps(config))
    process = subprocess.Popen(
        [find_program(), "serve", folder / "config.yml"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"listening on (127\.0\.0\.1:\d+)", line):
            # Nobody reads on, and a full pipe would stop it.
            threading.Thread(target=_drain, args=(process.stderr,), daemon=True).start()
            return Registry(process, found[1], certificate)
    raise AssertionError("the registry did not start: " + "".join(said))


def _drain(stream: Any) -> None:
    try:
        while stream.readline():
            pass
    except ValueError:
        # Closed by its owner.
        return


def make_certificate(folder: Path) -> Path:
    """Make a certificate for 127.0.0.1 that is its own authority."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem"


@dataclass
class BreakingProxy:
    """Passes connections on to a port, and stops each after `limit` bytes of answer: breaks it off, or lets it hang.

    The connections that hang are counted in `stalled`, which is released once for each. answered: bytes of all answers.
    """

    upstream: int
    limit: int
    is_stalling: bool = False
    stalled: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    answered: int = 0

    def __post_init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> BreakingProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Break all connections off. Ending twice is no error."""
        for each in (self._listener, *self._sockets):
            # Closing alone would leave the threads in accept() and recv().
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.upstream))
            self._sockets += [client, server]
            threading.Thread(target=self._pass_on, args=(client, server, None), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(server, client, self.limit), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, limit: int | None) -> None:
        count = 0
        try:
            while data := source.recv(65536):
                count += len(data)
                self.answered += len(data) if limit is not None else 0
                if limit is not None and count > limit:
                    if self.is_stalling:
                        self.stalled.release()
                        return
                    break
                target.sendall(data)
            for each in (source, target):
                each.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


# --- a small image


def make_root(folder: Path) -> Path:
    """Make a root folder with a shell in it: the host's own, with its libraries, and some bytes that cannot be compressed."""
    shell = os.path.realpath("/bin/sh")
    listed = subprocess.run(["ldd", shell], capture_output=True, text=True, check=True).stdout
    for path in (shell, *re.findall(r"(/\S+) \(0x", listed)):
        target = folder / ("bin/sh" if path == shell else path.lstrip("/"))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for name in ("etc", "tmp", "opt"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (folder / "etc/group").write_text("root:x:0:\n")
    (folder / "opt/noise").write_bytes(os.urandom(1_500_000))
    return folder


@dataclass(frozen=True)
class OciImage:
    """An image as registries know it: the blobs by digest, and the digest of its manifest."""

    blobs: dict[str, bytes]
    manifest: str
    config: str
    layer: str

    def push(self, registry: Registry, name: str, tag: str) -> None:
        """Send it to a registry without password."""
        base = f"http://{registry.host}/v2/{name}"
        for digest, content in self.blobs.items():
            if digest != self.manifest:
                location = _send("POST", f"{base}/blobs/uploads/").headers["Location"]
                separator = "&" if "?" in location else "?"
                _send("PUT", f"{location}{separator}digest={digest}", content, "application/octet-stream")
        _send("PUT", f"{base}/manifests/{tag}", self.blobs[self.manifest], _MANIFEST)

    def save_oci(self, path: Path) -> Path:
        """Write it as an archive in the OCI layout."""
        index = {"mediaType": _MANIFEST, "digest": self.manifest, "size": len(self.blobs[self.manifest])}
        files = {f"blobs/sha256/{digest.removeprefix('sha256:')}": blob for digest, blob in self.blobs.items()}
        files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [index]}).encode()
        files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
        return _write_tar(path, files)

    def save_docker(self, path: Path) -> Path:
        """Write it as `docker save` does."""
        manifest = [{"Config": "config.json", "RepoTags": ["tiny:1"], "Layers": ["layer.tar"]}]
        files = {
            "manifest.json": json.dumps(manifest).encode(),
            "config.json": self.blobs[self.config],
            "layer.tar": gzip.decompress(self.blobs[self.layer]),
        }
        return _write_tar(path, files)


def make_oci_image(root: Path, *above: Path) -> OciImage:
    """Make an image with an entry point, a variable and a label; each folder is a layer."""
    plain = [_pack_folder(folder) for folder in (root, *above)]
    layers = [gzip.compress(each, 1, mtime=0) for each in plain]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/bin:/bin", "WHO=tide"],
            "Entrypoint": ["/bin/sh", "-c"],
            "Cmd": ["echo hello"],
            "Labels": {"org.example.title": "tiny"},
        },
        "rootfs": {"type": "layers", "diff_ids": list(map(compute_digest, plain))},
    }
    configured = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _describe(configured, "application/vnd.oci.image.config.v1+json"),
        "layers": [_describe(layer, "application/vnd.oci.image.layer.v1.tar+gzip") for layer in layers],
    }
    blobs = {compute_digest(blob): blob for blob in (*layers, configured, json.dumps(manifest).encode())}
    layer_digest, *_, config_digest, manifest_digest = blobs
    return OciImage(blobs, manifest_digest, config_digest, layer_digest)


def _pack_folder(folder: Path) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(folder, arcname=".")
    return stream.getvalue()


def compute_digest(content: bytes) -> str:
    """Return the digest as registries write it."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _describe(blob: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": compute_digest(blob), "size": len(blob)}


def _send(method: str, url: str, content: bytes | None = None, media_type: str = "") -> Any:
    headers = {"Content-Type": media_type} if media_type else {}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, content, headers, method=method), timeout=30) as answer:
        return answer


def _write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        # The engine makes no folder that the archive does not name.
        for folder in sorted({str(parent) for name in files for parent in Path(name).parents} - {"."}):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path
