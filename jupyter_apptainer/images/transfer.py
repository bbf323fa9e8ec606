"""Pull and push images: from registries, libraries, archives and files to a SIF of this machine, and back.

The engine transfers. Around it: the name is resolved to a digest first, so that what was asked for is what comes; the file
appears whole under its name or not at all; a second pull of the same image waits for the first and uses what it brought.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ..engine.bars import Bar, BarReader
from ..engine.command import Command
from ..engine.environment import build_engine_environment
from ..engine.image_commands import build_convert, build_pull, build_push
from ..engine.locate import EngineInfo
from ..engine.lock import hold_lock
from ..engine.runner import Runner
from ..errors import ImageNotFound, RegistryError, SpecError
from ..instances.process import read_stat
from ..places import Places, make_private_dir
from .identity import check_image
from .records import PullRecord, build_record, find_pulled, find_record, save_record
from .reference import FILE_SCHEMES, REGISTRY_SCHEMES, Reference, parse_reference
from .registry import Access, RemoteImage, load_credentials, resolve
from .starter import COMPRESSION, remove_build_folder

PART_PREFIX = ".jpa-pull-"
# Homes are shared between hosts: after a day without growth a pull on another one counts as dead.
_ABANDONED_S = 86400.0
_PHASES = {
    "Downloading": "Downloading",
    "Fetching OCI image": "Downloading",
    "Extracting OCI image": "Unpacking",
    "Creating SIF file": "Compressing",
    "Converting OCI blobs": "Converting",
}


@dataclass(frozen=True)
class Progress:
    """Where a transfer is. done, total: of this phase, in `unit`; None where nobody knows. text: what the engine says."""

    phase: str
    done: int | None = None
    total: int | None = None
    unit: Literal["bytes", "percent", "items"] = "bytes"
    text: str = ""


OnTransfer = Callable[[Progress], None]


@dataclass(frozen=True)
class Settings:
    """no_https: hosts of registries, as HOST or HOST:PORT, that speak plain http; "*" is all. ca_bundle: a PEM file."""

    no_https: tuple[str, ...] = ()
    ca_bundle: str | None = None
    compression: str = COMPRESSION
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)


@dataclass(frozen=True)
class Pulled:
    """What a pull came to. how: downloaded, copied from an earlier pull of the same image, or there already."""

    path: str
    uri: str
    digest: str
    how: Literal["downloaded", "copied", "kept"]


def pull_image(
    engine: EngineInfo,
    places: Places,
    uri: str,
    target: Path,
    *,
    settings: Settings,
    is_forced: bool = False,
    on_progress: OnTransfer = lambda _: None,
) -> Pulled:
    """Bring the image `uri` to the file `target` and remember it, so that kernels find it by its name.

    is_forced: replace a file that is not this image. Interrupted, it leaves nothing; the old file stays until the end.
    Raises RegistryError and what else `diagnose` finds; SpecError for a name that cannot be.
    """
    reference = _make_absolute(parse_reference(uri))
    target = Path(os.path.abspath(target))
    if not target.parent.is_dir():
        raise ImageNotFound(
            f"the folder {target.parent} does not exist", hint=f"create it first: `mkdir -p {target.parent}`"
        )
    with _hold(places, reference.uri, on_progress), _hold(places, str(target), on_progress):
        return _Pull(engine, places, reference, target, settings, on_progress).run(is_forced=is_forced)


def push_image(
    engine: EngineInfo,
    image: Path,
    uri: str,
    *,
    settings: Settings,
    on_progress: OnTransfer = lambda _: None,
) -> str:
    """Send a SIF to a registry and return its digest there; an empty text where the registry does not tell.

    Raises SpecError for a name that cannot be, RegistryError and what else `diagnose` finds.
    """
    reference = parse_reference(uri)
    if reference.scheme not in ("oras", "library") or reference.digest:
        raise SpecError(
            f"an image cannot be pushed to {uri}",
            hint="write oras://HOST/NAME:TAG: registries take a SIF that way, and `image pull` brings it back",
        )
    if check_image(str(image)).kind != "sif":
        raise SpecError(f"{image} is no SIF file, and only those can be pushed", hint="build one of it first")
    on_progress(Progress("Uploading", total=image.stat().st_size))
    access = _build_access(engine, reference, settings)
    env = build_transfer_environment(settings)
    command = build_push(engine, str(image), reference.engine_uri, env, no_https=access.no_https)
    _run_with_progress(command, "Uploading", image.stat().st_size, on_progress)
    found = resolve(reference, access) if reference.scheme == "oras" else None
    return found.digest if found else ""


def build_transfer_environment(settings: Settings) -> dict[str, str]:
    """Return the environment in which the engine reaches registries."""
    env = build_engine_environment(settings.environ)
    if settings.ca_bundle:
        env["SSL_CERT_FILE"] = settings.ca_bundle
    return env


def find_parts(folder: Path) -> list[Path]:
    """Return what pulls that were killed left in a folder, files and folders. Those of a process that still runs are left out."""
    return [path for path in folder.glob(f"{PART_PREFIX}*") if not _is_in_use(path)]


class _Pull:
    """One pull, under its locks."""

    def __init__(
        self,
        engine: EngineInfo,
        places: Places,
        reference: Reference,
        target: Path,
        settings: Settings,
        on_progress: OnTransfer,
    ) -> None:
        self._engine = engine
        self._places = places
        self._reference = reference
        self._target = target
        self._settings = settings
        self._on_progress = on_progress
        self._access = _build_access(engine, reference, settings)

    def run(self, *, is_forced: bool) -> Pulled:
        remote = self._resolve()
        digest = remote.digest if remote else self._reference.digest
        there = find_record(self._places, str(self._target))
        if there and digest and there.digest == digest:
            self._remember(digest)
            return Pulled(there.path, self._reference.uri, digest, "kept")
        if os.path.lexists(self._target) and not is_forced:
            is_unsure = there is not None and not digest
            raise RegistryError(
                f"the file {self._target} exists already, and it "
                + (
                    f"cannot be told whether {self._reference.uri} is the same still"
                    if is_unsure
                    else f"is not the image that {self._reference.uri} is now"
                ),
                hint="choose another name, or replace it with `--force`",
            )
        earlier = self._find_earlier(digest)
        with self._replacing() as part:
            source = earlier.path if earlier else self._find_local_file()
            if source:
                self._on_progress(Progress("Copying"))
                shutil.copyfile(source, part)
            else:
                self._download(part, remote)
            check_image(str(part))
        self._remember(digest)
        return Pulled(str(self._target), self._reference.uri, digest, "copied" if earlier else "downloaded")

    def _remember(self, digest: str) -> None:
        save_record(self._places, build_record(self._reference, digest, str(self._target), time.time()))

    def _resolve(self) -> RemoteImage | None:
        if self._reference.scheme not in REGISTRY_SCHEMES:
            return None
        self._on_progress(Progress("Asking the registry"))
        return resolve(self._reference, self._access)

    def _find_earlier(self, digest: str) -> PullRecord | None:
        """Return an earlier pull of exactly this image; without a digest nobody can tell that it is the same."""
        if not digest:
            return None
        return find_pulled(self._places, replace(self._reference, digest=digest).uri)

    def _find_local_file(self) -> str | None:
        """Return a SIF of this machine that only has to be copied: so it keeps its signatures."""
        path = self._reference.rest
        return path if self._reference.scheme == "localimage" and check_image(path).kind == "sif" else None

    def _download(self, part: Path, remote: RemoteImage | None) -> None:
        pinned = replace(self._reference, digest=remote.digest) if remote else self._reference
        env = build_transfer_environment(self._settings)
        # The user's own choice of a disk stays; a folder of its own can be removed whatever the engine leaves in it.
        chosen = env.get("APPTAINER_TMPDIR") or env.get("SINGULARITY_TMPDIR")
        parent = Path(chosen) if chosen else make_private_dir(self._places.scratch)
        scratch = parent / self._build_name()
        env |= {"APPTAINER_TMPDIR": str(scratch), "SINGULARITY_TMPDIR": str(scratch)}
        command = self._build_command(str(part), pinned, env)
        try:
            make_private_dir(scratch)
            _run_with_progress(command, "Downloading", remote.size_bytes if remote else None, self._on_progress)
        finally:
            remove_build_folder(scratch)

    def _build_command(self, part: str, pinned: Reference, env: Mapping[str, str]) -> Command[None]:
        no_https = self._access.no_https
        if pinned.scheme == "docker" or pinned.scheme in FILE_SCHEMES:
            arguments = self._settings.compression
            return build_convert(
                self._engine, part, pinned.engine_uri, env, no_https=no_https, mksquashfs_args=arguments
            )
        return build_pull(self._engine, part, pinned.engine_uri, env, no_https=no_https)

    def _build_name(self) -> str:
        """Return a name that tells whose it is: what a pull that was killed has left can be found by it."""
        return f"{PART_PREFIX}{self._places.hostname}.{os.getpid()}-{secrets.token_hex(4)}"

    @contextmanager
    def _replacing(self) -> Iterator[Path]:
        """Yield a name beside the target; it becomes the target if the block succeeds, and is removed if not."""
        part = self._target.with_name(self._build_name())
        try:
            yield part
            os.replace(part, self._target)
        finally:
            part.unlink(missing_ok=True)


def _run_with_progress(command: Command[None], phase: str, size: int | None, on_progress: OnTransfer) -> None:
    """Run a transfer, and tell where it is by the bars that the engine draws. size: of the one file that travels, where it is known."""

    def take_line(line: str) -> None:
        nonlocal phase
        found = next((phase for word, phase in _PHASES.items() if word in line), None)
        on_progress(Progress(found or phase, text=line))
        phase = found or phase

    def take_bar(bar: Bar) -> None:
        total = size if size is not None and bar.unit == "bytes" else bar.total
        on_progress(Progress(phase, min(bar.done, total), total, bar.unit))

    reader = BarReader(take_line, take_bar)
    Runner().run(command, on_text=lambda _, text: reader.feed(text), use_pty=True)


def _build_access(engine: EngineInfo, reference: Reference, settings: Settings) -> Access:
    host = reference.host or reference.rest.partition("/")[0]
    return Access(
        no_https="*" in settings.no_https or host in settings.no_https,
        ca_bundle=settings.ca_bundle,
        credentials=load_credentials(engine, host, settings.environ) if reference.host else None,
    )


def _make_absolute(reference: Reference) -> Reference:
    """A file's name must mean the same wherever the engine is started; a tag after a colon stays."""
    if reference.scheme not in FILE_SCHEMES:
        return reference
    path, colon, tag = reference.rest.partition(":")
    path = os.path.expanduser(path)
    if not os.path.exists(path):
        raise ImageNotFound(f"there is no file {path}")
    return replace(reference, rest=os.path.abspath(path) + colon + tag)


@contextmanager
def _hold(places: Places, name: str, on_progress: OnTransfer) -> Iterator[None]:
    lock = places.cache / "pulls" / f"{hashlib.sha256(os.fsencode(name)).hexdigest()[:24]}.lock"
    with hold_lock(lock, on_wait=lambda: on_progress(Progress("Waiting for another pull of this image to end"))):
        yield


def _is_in_use(path: Path) -> bool:
    """Say whether the process that a file is named after may still run; on another host nobody here knows."""
    owner = path.name.removeprefix(PART_PREFIX).rpartition("-")[0]
    host, _, pid = owner.rpartition(".")
    if host != socket.gethostname():
        return time.time() - path.stat().st_mtime < _ABANDONED_S
    status = read_stat(int(pid)) if pid.isdigit() else None
    # Where nobody reaps them, dead processes stay in the table.
    return status is not None and status.state not in "ZX"
