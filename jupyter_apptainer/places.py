"""Where files of ours lie on this machine. Nothing is created here, and nothing else in the package joins such paths.

Three kinds: data (engines, images, the ledger: kept), cache (can be deleted at any time), runtime (sockets and scratch of
running kernels: gone with them). All are below one user's own folders and have mode 0700.
"""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

# A socket's path must fit into sockaddr_un (108 bytes with the closing zero, unix(7)); ours end in "/12345678/k-5".
MAX_SOCKET_PATH = 107


@dataclass(frozen=True)
class Places:
    """The folders of one user on one host."""

    data: Path
    cache: Path
    runtime: Path
    scratch: Path
    hostname: str

    @property
    def engine_prefix(self) -> Path:
        """Where `engine install` puts an unpacked engine."""
        return self.data / "engine"

    @property
    def images(self) -> Path:
        """Where the starter image and other images of ours lie."""
        return self.data / "images"

    @property
    def overlays(self) -> Path:
        """Where overlays lie that a kernel asked for without naming a file."""
        return self.data / "overlays"

    @property
    def contents(self) -> Path:
        """What images say about themselves, by identity of the file."""
        return self.cache / "contents"

    @property
    def pulled(self) -> Path:
        """One file for each image that was pulled from a registry: its name there, and the file that it is here."""
        return self.data / "pulled"

    @property
    def ledger(self) -> Path:
        """One file for each instance that we started on this host; homes are shared between hosts, so the name counts."""
        return self.data / "ledger" / self.hostname

    @property
    def tasks(self) -> Path:
        """A folder for each long piece of work on this host: its state, and what it printed."""
        return self.data / "tasks" / self.hostname

    @property
    def probes(self) -> Path:
        """What was found out about images and engines, by identity of the file."""
        return self.cache / "probes"

    @property
    def lent(self) -> Path:
        """Packages that are lent to images without ipykernel, a folder for each kind of Python."""
        return self.cache / "lent"

    def to_json(self) -> dict[str, str]:
        """For another process that shall use the same folders."""
        return {each.name: str(getattr(self, each.name)) for each in fields(self)}

    @classmethod
    def from_json(cls, record: Mapping[str, str]) -> Places:
        """Read what `to_json` gave."""
        folders = {name: Path(text) for name, text in record.items() if name != "hostname"}
        return cls(**folders, hostname=record["hostname"])


def find_places(environ: Mapping[str, str] | None = None) -> Places:
    """Compute the folders from `environ` (default: this process's).

    JUPYTER_APPTAINER_HOME moves data and cache together. Sockets go to XDG_RUNTIME_DIR where it exists and is ours,
    else to /tmp/jpa-UID; scratch (a kernel's /tmp) goes to TMPDIR, else /var/tmp, because it should lie on a disk.
    """
    env = os.environ if environ is None else environ
    home = Path(env.get("HOME") or Path.home())
    uid = os.getuid()
    own = env.get("JUPYTER_APPTAINER_HOME")
    data = Path(own) if own else Path(env.get("XDG_DATA_HOME") or home / ".local/share") / "jupyter-apptainer"
    cache = Path(own) / "cache" if own else Path(env.get("XDG_CACHE_HOME") or home / ".cache") / "jupyter-apptainer"
    session = env.get("XDG_RUNTIME_DIR")
    runtime = Path(session) / "jpa" if session and is_private_dir(Path(session)) else Path(f"/tmp/jpa-{uid}")
    scratch = Path(env.get("TMPDIR") or "/var/tmp") / f"jpa-{uid}"
    return Places(data=data, cache=cache, runtime=runtime, scratch=scratch, hostname=socket.gethostname())


def is_private_dir(path: Path) -> bool:
    """Say whether `path` is a real folder that belongs to us and that nobody else can write to."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022


def make_private_dir(path: Path) -> Path:
    """Create `path` with mode 0700, or check that it is ours.

    Raises PermissionError where a folder of that name belongs to somebody else, or is a link: /tmp is everybody's.
    """
    if not path.parent.is_dir():
        # `mkdir(parents=True)` would make the folders above with everybody's permissions.
        make_private_parents(path.parent)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not is_private_dir(path):
            raise PermissionError(f"{path} is not a folder of ours (uid {os.getuid()}) with mode 0700") from None
    return path


def make_private_parents(path: Path) -> None:
    """Create `path` and what is missing above it, each with mode 0700. What exists stays as it is."""
    if not path.is_dir():
        make_private_parents(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def write_private_file(path: Path, content: str) -> Path:
    """Write `path` atomically with mode 0600: readers see the old content or the new, never a part."""
    # Two threads of a server may write the same file; a thread's id is that of no other process either.
    temporary = path.with_name(f".{path.name}.{threading.get_native_id()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path
