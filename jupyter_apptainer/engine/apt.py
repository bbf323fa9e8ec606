"""A private use of apt: packages of any suite of the host's own mirror, for any user, without touching the host.

The host's configuration is only read: where its mirror is, and how it is reached (proxies, credentials, certificates).
Lists, caches and state lie in a folder of ours. apt verifies signatures and checksums as ever.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .command import Completed
from .step import StepError, build_step_environment, find_program, run_step

_INRELEASE = re.compile(r"^'(?P<uri>.+)/dists/(?P<suite>[^']+)/InRelease'")
_KEYRINGS = Path("/usr/share/keyrings")


@dataclass(frozen=True)
class Mirror:
    """The archive that this host installs from. suite: the host's own, as the archive calls it ("bookworm")."""

    uri: str
    suite: str
    distribution: str

    @property
    def newest_suite(self) -> str:
        """The suite where new packages arrive first: Debian's sid; Ubuntu calls its own "devel"."""
        return "devel" if self.distribution == "ubuntu" else "sid"

    @property
    def components(self) -> str:
        """Ubuntu keeps what it does not support itself in universe."""
        return "main universe" if self.distribution == "ubuntu" else "main"

    @property
    def keyring(self) -> Path:
        """The keys that sign this archive; where there is no such file, apt's own trusted keys count."""
        return _KEYRINGS / f"{self.distribution}-archive-keyring.gpg"


@dataclass(frozen=True)
class Package:
    """One package of a suite."""

    name: str
    version: str
    section: str
    size: int


def load_os_release(path: Path = Path("/etc/os-release")) -> dict[str, str]:
    """Read os-release(5)."""
    try:
        return parse_os_release(path.read_text())
    except OSError:
        return {}


def parse_os_release(text: str) -> dict[str, str]:
    """Parse the text of an os-release(5)."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key: value.strip("\"'") for key, _, value in pairs}


def find_mirror() -> Mirror:
    """Ask apt where this host's packages come from; it need not have downloaded any list. Raises StepError."""
    if not find_program("apt-get"):
        raise StepError("this host has no apt-get")
    listing = run_step(("apt-get", "update", "--print-uris"), "ask apt for the host's mirror").stdout
    release = load_os_release()
    family = f"{release.get('ID', '')} {release.get('ID_LIKE', '')}".split()
    distribution = "ubuntu" if "ubuntu" in family else "debian"
    return choose_mirror(listing, release.get("VERSION_CODENAME", ""), distribution)


def load_archives() -> list[tuple[str, str]]:
    """Return all that the host's apt reads, as (address, suite). Raises StepError."""
    listing = run_step(("apt-get", "update", "--print-uris"), "ask apt for the host's archives").stdout
    return parse_archives(listing)


def parse_archives(listing: str) -> list[tuple[str, str]]:
    """Parse the output of `apt-get update --print-uris`."""
    matches = filter(None, map(_INRELEASE.match, listing.splitlines()))
    return [(match["uri"], match["suite"]) for match in matches]


def choose_mirror(listing: str, codename: str, distribution: str) -> Mirror:
    """Choose from the output of `apt-get update --print-uris` the archive that holds the distribution itself.

    Archives of security updates have other paths; those of third parties, other suites or no suite of updates.
    """
    sources = parse_archives(listing)
    own = [source for source in sources if _is_main_archive(source[0], distribution) and "-" not in source[1]]
    if not own:
        raise StepError(f"apt's configuration names no mirror of {distribution}")
    uri, suite = min(own, key=lambda each: (each[1] != codename, (each[0], f"{each[1]}-updates") not in sources))
    return Mirror(uri=uri, suite=suite, distribution=distribution)


def _is_main_archive(uri: str, distribution: str) -> bool:
    words = urllib.parse.urlsplit(uri).path.split("/")
    return uri.startswith("mirror") or distribution in words or f"{distribution}-ports" in words


def find_http_uri(mirror: Mirror) -> str:
    """Return an address of the mirror for programs that, unlike apt, cannot read `mirror+file:` lists."""
    if not mirror.uri.startswith("mirror+file:"):
        return mirror.uri
    listed = Path(urllib.parse.urlsplit(mirror.uri).path).read_text().split()
    return next((word.rstrip("/") for word in listed if word.startswith("http")), mirror.uri)


class PrivateApt:
    """apt with a configuration, lists and caches of its own below `folder`. Makes nothing until `update`.

    sources: the text of a sources.list, as from `build_sources`; None for the host's own.
    """

    def __init__(self, folder: Path, sources: str | None) -> None:
        self._folder = folder
        self._sources = sources
        self._env: Mapping[str, str] = build_step_environment() | {"APT_CONFIG": str(folder / "apt.conf")}

    def update(self) -> None:
        """Fetch the package lists. Raises StepError, also for a signature that cannot be verified."""
        for name in ("lists/partial", "archives/partial", "debs"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        (self._folder / "status").touch()
        if self._sources is not None:
            (self._folder / "sources.list").write_text(self._sources)
        host = run_step(("apt-config", "dump"), "read apt's configuration").stdout
        text = build_apt_configuration(host, self._folder, has_own_sources=self._sources is not None)
        (self._folder / "apt.conf").write_text(text)
        self._run(("apt-get", "-q", "update"), "fetch the package lists", timeout_s=300)

    def find_candidate(self, name: str) -> str | None:
        """Return the version of `name` that would be installed, or None where no suite has it."""
        return parse_candidate(self._run(("apt-cache", "policy", name), f"look for {name}").stdout)

    def resolve(self, names: Sequence[str]) -> tuple[Package, ...]:
        """Return `names` and all that they need to run, as if nothing were installed, in the newest suite's versions."""
        plan = self._run(
            ("apt-get", "-qq", "--no-install-recommends", "--simulate", "install", *names), f"find {' '.join(names)}"
        ).stdout
        wanted = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
        records = self._run(("apt-cache", "--no-all-versions", "show", *wanted), "read the package lists").stdout
        return parse_packages(records)

    def download(self, references: Sequence[str]) -> tuple[Path, ...]:
        """Download packages (`name`, `name=version` or `name/suite`) and return the files."""
        folder = self._folder / "debs"
        before = set(folder.iterdir())
        self._run(("apt-get", "-q", "download", *references), "download packages", cwd=str(folder), timeout_s=900)
        return tuple(sorted(set(folder.iterdir()) - before))

    def _run(self, argv: Sequence[str], title: str, *, cwd: str | None = None, timeout_s: float = 120) -> Completed:
        return run_step(argv, title, env=self._env, cwd=cwd, timeout_s=timeout_s)


def build_sources(mirror: Mirror, suites: Sequence[str]) -> str:
    """Build a sources.list(5) of some suites of `mirror`."""
    keyring = f"[signed-by={mirror.keyring}] " if mirror.keyring.exists() else ""
    return "".join(f"deb {keyring}{mirror.uri} {suite} {mirror.components}\n" for suite in dict.fromkeys(suites))


def build_apt_configuration(host: str, folder: Path, *, has_own_sources: bool = True) -> str:
    """Build an apt.conf from the host's `apt-config dump`: its ways to the mirror, but none of its hooks, lists and pins."""
    kept = [
        line
        for line in host.splitlines()
        if line.startswith(("Acquire::", "APT::Architecture")) and not line.startswith("Acquire::IndexTargets")
    ]
    own: dict[str, object] = {
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::parts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::State::extended_states": folder / "extended_states",
        "Dir::Cache::archives": folder / "archives",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "APT::Sandbox::User": "",
        "APT::Get::AllowUnauthenticated": "false",
        "Acquire::AllowInsecureRepositories": "false",
        "Acquire::AllowWeakRepositories": "false",
        "Acquire::Languages": "none",
    }
    if has_own_sources:
        own |= {
            # Without it apt-get ends well although it could not fetch a list.
            "APT::Update::Error-Mode": "any",
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
        }
    kept = [line for line in kept if line.split(" ", 1)[0].rstrip(":") not in own]
    return "\n".join([*kept, *(f'{key} "{value}";' for key, value in own.items())]) + "\n"


def parse_packages(records: str) -> tuple[Package, ...]:
    """Parse the paragraphs that `apt-cache show` prints; of a package that comes twice, the first counts."""
    found: dict[str, Package] = {}
    for paragraph in records.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and not line.startswith(" ")
        )
        name = fields.get("Package", "")
        if name and name not in found:
            found[name] = Package(
                name=name,
                version=fields["Version"],
                section=fields.get("Section", "").rsplit("/", 1)[-1],
                size=int(fields.get("Size", "0")),
            )
    return tuple(found.values())


def parse_candidate(policy: str) -> str | None:
    """Parse `apt-cache policy NAME`: the version behind "Candidate:", if there is one."""
    match = re.search(r"^  Candidate: (?P<version>\S+)$", policy, re.MULTILINE)
    return match["version"] if match and match["version"] != "(none)" else None
