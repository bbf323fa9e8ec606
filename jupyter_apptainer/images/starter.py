"""The starter image: a small Python for notebooks, made on this machine.

It comes from an image registry where one is reachable, otherwise from the mirror of the host's own distribution. It is
made as a folder first and scrubbed of the mirror's name, then compressed with lz4, which reads fastest (zstd starts a
kernel a tenth slower, gzip half as slow again), in small blocks, of which the program that mounts it keeps a number in
memory (20 MB at the usual 128 KiB, 9 MB at 32 KiB, at the same speed). What exists is kept until the definition changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from ..engine.apt import Mirror, find_http_uri, find_mirror, load_os_release
from ..engine.command import Command, strip_ansi
from ..engine.environment import build_engine_environment
from ..engine.locate import EngineInfo
from ..engine.lock import hold_lock
from ..engine.options import build_image_build
from ..engine.output import Stream
from ..engine.runner import Runner
from ..engine.step import OnProgress, StepError, run_step
from ..errors import ApptainerError, BuildError, CommandError
from ..places import Places, make_private_dir, write_private_file
from .host_settings import HostSettings, load_host_settings, write_build_settings

COMPRESSION = "-comp lz4 -b 32K"
REGISTRY = "https://registry-1.docker.io/v2/"
REGISTRY_IMAGE = "docker.io/library/python:3.12-slim"
REGISTRY_DEADLINE_S = 4.0
# The first releases with Python 3.11 or newer; older hosts take these from their mirror instead of their own.
_FIRST_RELEASES = {"debian": (12, "stable"), "ubuntu": (24, "noble")}


@dataclass(frozen=True)
class Source:
    """Where the image begins: arguments of the definition, and the line of sources.list(5) for its %post."""

    title: str
    arguments: Mapping[str, str]
    apt_source: str = ""


def build_starter_image(
    engine: EngineInfo,
    places: Places,
    *,
    on_progress: OnProgress = lambda _: None,
    ca_bundle: Path | None = None,
    is_forced: bool = False,
    environ: Mapping[str, str] | None = None,
) -> Path:
    """Return the path of the starter image, making it if it is not there or its definition has changed.

    ca_bundle: the certificates of a proxy; by default those that SSL_CERT_FILE, PIP_CERT and the like name.
    Two calls at once build once. Raises BuildError with the last lines of the log.
    """
    env = os.environ if environ is None else environ
    images = make_private_dir(places.images)
    image = images / "starter.sif"
    with hold_lock(
        images / ".starter.lock", on_wait=lambda: on_progress("Waiting for another build of the image to end")
    ):
        if not is_forced and _is_current(image):
            return image
        settings = load_host_settings(env, ca_bundle)
        _Build(engine, places, settings, env, on_progress).run(image)
        write_private_file(_record_path(image), json.dumps({"digest": compute_definition_digest()}))
    return image


def load_definition() -> str:
    """Return the definition file that is shipped with the package."""
    return files(__package__).joinpath("data/starter.def").read_text(encoding="utf-8")


def compute_definition_digest() -> str:
    """Identify what a starter image is made of; an image with another digest is made anew."""
    return hashlib.sha256(f"{load_definition()}\0{COMPRESSION}".encode()).hexdigest()


def is_registry_reachable(settings: HostSettings, *, deadline_s: float = REGISTRY_DEADLINE_S) -> bool:
    """Say whether the image registry answers at all, be it that it wants a token."""
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler(_lower_proxies(settings.proxies)),
        urllib.request.HTTPSHandler(context=_build_tls_context(settings.ca_bundle)),
    )
    try:
        with opener.open(REGISTRY, timeout=deadline_s):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False


def choose_debian_source(mirror: Mirror, release: Mapping[str, str]) -> Source:
    """Build the arguments for a bootstrap from the host's mirror."""
    first, substitute = _FIRST_RELEASES[mirror.distribution]
    number = re.match(r"\d+", release.get("VERSION_ID", ""))
    suite = substitute if number and int(number[0]) < first else mirror.suite
    uri = find_http_uri(mirror)
    # Ubuntu's python3-venv is in universe, which debootstrap does not read.
    packages = "python3-venv" if mirror.distribution == "debian" else ""
    return Source(
        title=f"{mirror.distribution} {suite} from this host's mirror",
        arguments={"BOOTSTRAP": "debootstrap", "SUITE": suite, "MIRROR": uri, "PACKAGES": packages},
        apt_source=f"deb {uri} {suite} {mirror.components}",
    )


class _Build:
    """One build: its sources, its scratch folder, its log."""

    def __init__(
        self,
        engine: EngineInfo,
        places: Places,
        settings: HostSettings,
        environ: Mapping[str, str],
        on_progress: OnProgress,
    ) -> None:
        self._engine = engine
        self._places = places
        self._settings = settings
        self._environ = environ
        self._on_progress = on_progress
        self._log: list[str] = []

    def run(self, image: Path) -> None:
        """Make `image`, from the first source that works."""
        failures: list[tuple[Source, ApptainerError]] = []
        sources, refusal = self._find_sources()
        for source in sources:
            self._on_progress(f"Building from {source.title}")
            try:
                self._build(source, image)
                return
            except CommandError as error:
                failures.append((source, error))
                self._on_progress(f"Not from {source.title}: {error.message}")
        raise self._build_error(failures, refusal)

    def _find_sources(self) -> tuple[list[Source], str]:
        sources: list[Source] = []
        refusal = ""
        self._on_progress("Looking for an image registry")
        if is_registry_reachable(self._settings):
            sources.append(Source(REGISTRY_IMAGE, {"BOOTSTRAP": "docker", "FROM": REGISTRY_IMAGE}))
        try:
            sources.append(choose_debian_source(find_mirror(), load_os_release()))
        except StepError as error:
            refusal = error.reason
        return sources, refusal

    def _build(self, source: Source, image: Path) -> None:
        # Named before it is made, so that an interrupt at any moment finds it.
        scratch = make_private_dir(self._places.scratch) / f"build-{secrets.token_hex(4)}"
        fresh = image.with_name(f".{image.name}.{os.getpid()}")
        sandbox = scratch / "image"
        try:
            make_private_dir(scratch)
            settings, temporary = scratch / "settings", scratch / "tmp"
            settings.mkdir()
            temporary.mkdir()
            definition = scratch / "starter.def"
            definition.write_text(load_definition(), encoding="utf-8")
            env = build_engine_environment({**self._settings.proxies, **self._environ}) | {
                "APPTAINER_TMPDIR": str(temporary)
            }
            if self._settings.ca_bundle:
                env["SSL_CERT_FILE"] = str(self._settings.ca_bundle)
            binds = write_build_settings(self._settings, settings, {"APT_SOURCE": source.apt_source})
            self._run(
                build_image_build(
                    self._engine,
                    str(sandbox),
                    str(definition),
                    env,
                    build_args=source.arguments,
                    binds=binds,
                    is_sandbox=True,
                )
            )
            scrub_sandbox(sandbox, load_definition())
            self._on_progress("Compressing")
            self._run(
                build_image_build(
                    self._engine, str(fresh), str(sandbox), env, mksquashfs_args=COMPRESSION, is_forced=True
                )
            )
            fresh.rename(image)
        finally:
            fresh.unlink(missing_ok=True)
            remove_build_folder(scratch)

    def _run(self, command: Command[None]) -> None:
        Runner().run(command, on_text=self._note)

    def _note(self, _: Stream, text: str) -> None:
        lines = strip_ansi(text).splitlines()
        self._log += lines
        for line in lines:
            if line.startswith("== "):
                self._on_progress(line.removeprefix("== "))

    def _build_error(self, failures: list[tuple[Source, ApptainerError]], refusal: str) -> ApptainerError:
        if failures and type(failures[-1][1]) not in (CommandError, BuildError):
            # Its own message and hint say more: no space, no user namespaces, …
            return failures[-1][1]
        reasons = [f"{source.title}: {error.message}" for source, error in failures]
        if not any("registry" in source.title or source.title == REGISTRY_IMAGE for source, _ in failures):
            reasons.insert(0, "no image registry can be reached")
        reasons += [refusal] if refusal else []
        log = write_private_file(
            make_private_dir(self._places.cache) / "starter-build.log", "\n".join(self._log) + "\n"
        )
        return BuildError(
            f"could not build the starter image: {'; '.join(reasons)}",
            hint=f"the whole log is in {log}; behind a proxy with its own certificates, name them with --ca-bundle",
            log_tail=[line for line in self._log if line.strip()],
        )


def scrub_sandbox(sandbox: Path, definition: str) -> None:
    """Put back the definition as it was written, and remove what the engine wrote down about the mirror, which may be nobody else's business."""
    folder = sandbox / ".singularity.d"
    labels = folder / "labels.json"
    kept = {key: value for key, value in json.loads(labels.read_text()).items() if not key.endswith(".mirrorurl")}
    labels.write_text(json.dumps(kept, indent=1))
    (folder / "Singularity").write_text(definition, encoding="utf-8")


def remove_build_folder(path: Path) -> None:
    """Remove a folder in which a build, ended early, may have left files of subordinate users."""
    shutil.rmtree(path, ignore_errors=True)
    if os.path.lexists(path):
        with suppress(StepError):
            run_step(("unshare", "--map-root-user", "--map-auto", "rm", "-rf", str(path)), f"remove {path}")


def _is_current(image: Path) -> bool:
    try:
        record = json.loads(_record_path(image).read_text())
    except (OSError, ValueError):
        return False
    return image.is_file() and isinstance(record, dict) and record.get("digest") == compute_definition_digest()


def _record_path(image: Path) -> Path:
    return image.with_suffix(".json")


def _lower_proxies(proxies: Mapping[str, str]) -> dict[str, str]:
    found = {name.lower().removesuffix("_proxy"): value for name, value in proxies.items()}
    return {scheme: value for scheme, value in found.items() if scheme in ("http", "https")}


def _build_tls_context(ca_bundle: Path | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca_bundle) if ca_bundle else None)
