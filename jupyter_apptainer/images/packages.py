"""Which packages an image's files say are installed: those of dpkg, apk and rpm, of Python, conda, R and Julia. Pure: from bytes to values."""

from __future__ import annotations

import json
import re
import sqlite3
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

_BLANK_LINE = re.compile(r"\n\n+")
_FIELD = re.compile(r"^([A-Za-z-]+):[ \t]*(.*)$", re.MULTILINE)
_TOML_VERSION = re.compile(r'^version\s*=\s*"([^"]+)"', re.MULTILINE)
_DIST_INFO = re.compile(r"(?P<place>.*)/[^/]+\.(?:dist-info/METADATA|egg-info/PKG-INFO|egg-info)")
_CONDA = re.compile(r"(?P<place>.*)/conda-meta/[^/]+\.json")
_R = re.compile(r"(?P<place>.*/(?:site-)?library)/(?P<name>[^/]+)/DESCRIPTION")
_JULIA = re.compile(r"(?P<place>.*/packages)/(?P<name>[^/]+)/[A-Za-z0-9]{5}/Project\.toml")
# Header tags of rpm: name, version, release, epoch, architecture.
_RPM_TAGS = {1000: "name", 1001: "version", 1002: "release", 1003: "epoch", 1022: "arch"}
_RPM_STRINGS = (6, 9)


@dataclass(frozen=True, order=True)
class Package:
    """One package. place: the folder of the library that it is in; empty for the system's own.

    source: where exactly it came from, where that is written down. sha256: of the archive that it came in.
    """

    manager: str
    place: str
    name: str
    version: str
    source: str = ""
    sha256: str = ""


def is_wanted(path: str) -> bool:
    """Say whether the file at this path of an image tells about packages."""
    return any(pattern.fullmatch(path) for pattern, _ in _READERS) or path.endswith(".dist-info/direct_url.json")


def find_packages(files: Mapping[str, bytes]) -> tuple[Package, ...]:
    """Return what the files say, in order. A file that cannot be understood says nothing."""
    found: set[Package] = set()
    for path, content in files.items():
        for pattern, read in _READERS:
            match = pattern.fullmatch(path)
            if match:
                found.update(read(match, content, files))
                break
    return tuple(sorted(found))


Reader = Callable[[re.Match[str], bytes, Mapping[str, bytes]], Iterator[Package]]


def _read_dpkg(_: re.Match[str], content: bytes, files: Mapping[str, bytes]) -> Iterator[Package]:
    rows = [dict(_FIELD.findall(part)) for part in _BLANK_LINE.split(_decode(content))]
    rows = [row for row in rows if "Package" in row and row.get("Status", "installed").endswith("installed")]
    # One name can be installed for several architectures.
    names = [row["Package"] for row in rows]
    for row in rows:
        name = row["Package"]
        full = f"{name}:{row.get('Architecture', '')}" if names.count(name) > 1 else name
        yield Package("dpkg", "", full, row.get("Version", ""))


def _read_apk(_: re.Match[str], content: bytes, files: Mapping[str, bytes]) -> Iterator[Package]:
    for part in _BLANK_LINE.split(_decode(content)):
        row = dict(line.split(":", 1) for line in part.splitlines() if ":" in line)
        if "P" in row:
            yield Package("apk", "", row["P"], row.get("V", ""))


def _read_rpm(_: re.Match[str], content: bytes, files: Mapping[str, bytes]) -> Iterator[Package]:
    with tempfile.NamedTemporaryFile() as stream:
        stream.write(content)
        stream.flush()
        try:
            with closing(sqlite3.connect(f"file:{stream.name}?mode=ro&immutable=1", uri=True)) as database:
                blobs = [row[0] for row in database.execute("SELECT blob FROM Packages")]
        except sqlite3.Error:
            return
    for blob in blobs:
        tags = _parse_rpm_header(blob)
        if tags.get("name") and tags.get("arch"):
            epoch = f"{tags['epoch']}:" if tags.get("epoch") else ""
            version = f"{epoch}{tags.get('version', '')}-{tags.get('release', '')}"
            yield Package("rpm", "", f"{tags['name']}.{tags['arch']}", version)


def _parse_rpm_header(blob: bytes) -> dict[str, str]:
    """A header is two counts, an index of (tag, type, offset, count), and the data; all in network order."""
    found: dict[str, str] = {}
    try:
        rows, _ = struct.unpack_from(">II", blob)
        start = 8 + 16 * rows
        for tag, kind, offset, _ in struct.iter_unpack(">IIII", blob[8:start]):
            name = _RPM_TAGS.get(tag)
            if name and kind in _RPM_STRINGS:
                found[name] = _decode(blob[start + offset :].split(b"\0", 1)[0])
            elif name:
                found[name] = str(struct.unpack_from(">I", blob, start + offset)[0])
    except struct.error:
        return {}
    return found


def _read_python(match: re.Match[str], content: bytes, files: Mapping[str, bytes]) -> Iterator[Package]:
    # Of a header that is there twice, as in the text of a licence, the first counts.
    fields: list[tuple[str, str]] = _FIELD.findall(_decode(content).partition("\n\n")[0])
    row = dict(reversed(fields))
    name, version = row.get("Name", "").strip(), row.get("Version", "").strip()
    if name and version:
        beside = files.get(match[0].rpartition("/")[0] + "/direct_url.json", b"")
        source, digest = _parse_direct_url(beside)
        yield Package("python", "/" + match["place"], name, version, source, digest)


def _parse_direct_url(content: bytes) -> tuple[str, str]:
    """Return URL and digest of what was not taken from an index (PEP 610), without a password in it."""
    record = _load(content)
    if not record:
        return "", ""
    url = re.sub(r"://[^/@]*@", "://", str(record.get("url", "")))
    version = record.get("vcs_info")
    if isinstance(version, dict):
        return f"{version.get('vcs', 'git')}+{url}@{version.get('commit_id', '')}", ""
    archive = record.get("archive_info")
    hashes = archive.get("hashes") if isinstance(archive, dict) else None
    digest = hashes.get("sha256", "") if isinstance(hashes, dict) else ""
    return url, str(digest)


def _read_conda(match: re.Match[str], content: bytes, files: Mapping[str, bytes]) -> Iterator[Package]:
    record = _load(content)
    if record.get("name") and record.get("version"):
        # The build is part of what is installed: `numpy=1.26.4=py311h64a7726_0`.
        version = f"{record['version']}={record.get('build', '')}"
        url = re.sub(
            r"://[^/@]*@|/t/[^/]+(?=/)", lambda found: "://" if "@" in found[0] else "", str(record.get("url", ""))
        )
        place = "/" + match["place"]
        yield Package("conda", place, str(record["name"]), version, url, str(record.get("sha256", "")))


def _read_r(match: re.Match[str], content: bytes, files: Mapping[str, bytes]) -> Iterator[Package]:
    row = dict(_FIELD.findall(_decode(content)))
    if row.get("Version"):
        yield Package("r", "/" + match["place"], row.get("Package") or str(match["name"]), row["Version"])


def _read_julia(match: re.Match[str], content: bytes, files: Mapping[str, bytes]) -> Iterator[Package]:
    version = _TOML_VERSION.search(_decode(content))
    if version:
        yield Package("julia", "/" + match["place"], match["name"], version[1])


def _load(content: bytes) -> dict[str, object]:
    try:
        document = json.loads(content or b"{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _decode(content: bytes) -> str:
    return content.decode("utf-8", "replace")


_READERS: tuple[tuple[re.Pattern[str], Reader], ...] = (
    (re.compile(r"var/lib/dpkg/status(\.d/[^/]+)?"), _read_dpkg),
    (re.compile(r"(?:usr/)?lib/apk/db/installed"), _read_apk),
    (re.compile(r"(?:var/lib|usr/lib/sysimage)/rpm/rpmdb\.sqlite"), _read_rpm),
    (_DIST_INFO, _read_python),
    (_CONDA, _read_conda),
    (_R, _read_r),
    (_JULIA, _read_julia),
)
