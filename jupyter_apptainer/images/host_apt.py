"""apt in a build: packages from this host's mirror, in an image of the host's distribution.

An image that was made from a mirror names none, and the one that an image names may be out of reach. With the host's settings
apt gets a configuration in the folder that is mounted over /mnt: the mirror's name, lists and caches never touch the image.
The lists are kept for later builds: a step that has fetched them may be a layer by then.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from ..engine.apt import Mirror, find_http_uri, find_mirror, load_archives, load_os_release, parse_os_release
from ..engine.locate import EngineInfo
from ..engine.options import ContainerOptions, build_exec
from ..engine.runner import Runner
from ..engine.step import StepError, run_step
from ..errors import ApptainerError
from ..places import make_private_dir
from .recipes.definition import Definition

_READ_DEADLINE_S = 60
_KEPT_S = 30 * 86400
_ROOM = "apt"
# Files of the host that its apt reads: they are not there in a build.
_FILES = ("::CAInfo", "::CAPath", "::SSLCert", "::SSLKey", "::CRLFile", "::IssuerCert")


def find_apt_sources(engine: EngineInfo, definition: Definition, folder: Path, env: Mapping[str, str]) -> str:
    """Return a sources.list(5) for a build that begins with images of this machine, "" where the host has nothing for them.

    folder: where the definition's paths start from. An image of a registry is not there to be asked before the build.
    """
    if not any("apt" in section.body for stage in definition.stages for section in stage.sections):
        return ""
    images = list(_iter_local_images(definition, folder))
    releases = [_read_release(engine, image, env) for image in images]
    if not releases or any(release != releases[0] for release in releases):
        return ""
    try:
        return build_apt_sources(find_mirror(), load_os_release(), releases[0])
    except StepError:
        return ""


def build_apt_sources(mirror: Mirror, host: Mapping[str, str], image: Mapping[str, str]) -> str:
    """Return the sources for an image of `mirror`'s distribution; for the host's own release with the updates that the host has."""
    suite = image.get("VERSION_CODENAME", "")
    if image.get("ID") != mirror.distribution or not suite:
        return ""
    archives = [(find_http_uri(mirror), suite)]
    if suite == host.get("VERSION_CODENAME"):
        archives += [
            each
            for each in load_archives()
            if _is_own(each[0], mirror.distribution) and each[1].startswith(f"{suite}-")
        ]
    return "".join(f"deb {uri} {name} {mirror.components}\n" for uri, name in dict.fromkeys(archives))


def write_apt_settings(
    folder: Path, mount_point: str, sources: str, *, has_certificates: bool
) -> tuple[dict[str, str], str]:
    """Write apt's configuration to `folder`, which will be at `mount_point`; return the variables that lead to it, and the bind
    destination for the AptRoom, which is no part of what is asked for.
    """
    inside = f"{mount_point}/{_ROOM}"
    (folder / _ROOM).mkdir()
    (folder / "sources.list").write_text(sources, encoding="utf-8")
    lines = [
        *_load_acquire_settings(),
        f'Dir::Etc::sourcelist "{mount_point}/sources.list";',
        'Dir::Etc::sourceparts "/dev/null";',
        f'Dir::State::lists "{inside}/lists";',
        f'Dir::Cache "{inside}/cache";',
        # The user _apt has no id where a build knows one user only, and may not read the mount.
        'APT::Sandbox::User "root";',
        # What a build has written when the power fails is thrown away.
        'Dpkg::Options:: "--force-unsafe-io";',
    ]
    if has_certificates:
        lines.append(f'Acquire::https::CAInfo "{mount_point}/ca.crt";')
    (folder / "apt.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"APT_CONFIG": f"{mount_point}/apt.conf"}, inside


class AptRoom:
    """The folder that apt writes to in one build. Its lists come from an earlier build, and are kept for later ones.

    Without them an `apt-get update` that is a layer already, and is not run again, would have been for nothing.
    """

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.lacks_lists = False
        self._cache = cache / "apt"
        self._lists: Path | None = None

    def open(self, sources: str) -> None:
        """Make the folder, with the lists of these sources where there are any."""
        for name in ("lists/partial", "cache/archives/partial"):
            (self.folder / name).mkdir(parents=True)
        self._lists = self._cache / hashlib.sha256(sources.encode()).hexdigest()[:24]
        self.lacks_lists = not self._lists.is_dir()
        if not self.lacks_lists:
            _copy_files(self._lists, self.folder / "lists")

    def keep(self) -> None:
        """Keep what apt has fetched, if that is whole, and remove what nobody has needed for long."""
        fetched = self.folder / "lists"
        if self._lists is None or not any(path.name.endswith("Release") for path in fetched.glob("*")):
            return
        fresh = make_private_dir(self._cache) / f"{self._lists.name}.{secrets.token_hex(4)}"
        fresh.mkdir()
        _copy_files(fetched, fresh)
        shutil.rmtree(self._lists, ignore_errors=True)
        # Of two builds that end at the same moment, one is enough.
        with suppress(OSError):
            fresh.rename(self._lists)
        for each in self._cache.iterdir():
            if each == fresh or each.stat().st_mtime < time.time() - _KEPT_S:
                shutil.rmtree(each, ignore_errors=True)


def _copy_files(source: Path, target: Path) -> None:
    for path in source.iterdir():
        if path.is_file() and path.name != "lock":
            shutil.copyfile(path, target / path.name)


def _iter_local_images(definition: Definition, folder: Path) -> Iterator[Path]:
    for stage in definition.stages:
        origin = stage.get_header("from")
        if stage.agent == "localimage" and origin:
            yield folder / origin.value


def _read_release(engine: EngineInfo, image: Path, env: Mapping[str, str]) -> dict[str, str]:
    command = build_exec(
        engine,
        str(image),
        ("cat", "/etc/os-release"),
        env,
        options=ContainerOptions(home="none"),
        cwd="/",
        timeout_s=_READ_DEADLINE_S,
    )
    try:
        return parse_os_release(Runner().run(command).stdout)
    except ApptainerError:
        # Without os-release it is no image of a distribution; what else is wrong with it, the build will say.
        return {}


def _is_own(uri: str, distribution: str) -> bool:
    words = urllib.parse.urlsplit(uri).path.split("/")
    return uri.startswith("http") and any(word in words for word in (distribution, f"{distribution}-security"))


def _load_acquire_settings() -> list[str]:
    """Return how the host's apt fetches: proxies, time-outs, what it checks."""
    try:
        shown = run_step(("apt-config", "dump"), "read apt's configuration").stdout
    except StepError:
        return []
    return [
        line
        for line in shown.splitlines()
        if line.startswith("Acquire::")
        and not line.startswith("Acquire::IndexTargets")
        and not any(word in line for word in _FILES)
    ]
