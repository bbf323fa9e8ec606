"""Names of images that lie elsewhere: `docker://HOST/NAME:TAG@sha256:…`, oras, library, archives; what they mean, and which is which."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from ..errors import SpecError

Scheme = Literal[
    "docker", "oras", "library", "shub", "http", "https", "docker-archive", "oci-archive", "oci", "localimage"
]

REGISTRY_SCHEMES = ("docker", "oras")
FILE_SCHEMES = ("docker-archive", "oci-archive", "oci", "localimage")
_OTHER_SCHEMES = ("library", "shub", "http", "https")
_URI = re.compile(r"(?P<scheme>[a-z][a-z-]*):(?P<rest>.+)", re.DOTALL)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HOST = re.compile(r"[A-Za-z0-9.-]+(?::\d+)?|\[[0-9a-fA-F:]+\](?::\d+)?")
_DOCKER_HUB = "docker.io"


@dataclass(frozen=True)
class Reference:
    """A name, taken apart. host, repository, tag and digest are those of a registry; others have only `rest`."""

    scheme: Scheme
    rest: str
    host: str = ""
    repository: str = ""
    tag: str = ""
    digest: str = ""

    @property
    def uri(self) -> str:
        """The name in full: the registry's host and the tag are always there."""
        if self.scheme not in REGISTRY_SCHEMES:
            separator = "://" if self.scheme in _OTHER_SCHEMES else ":"
            return f"{self.scheme}{separator}{self.rest}"
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.scheme}://{self.host}/{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")

    @property
    def engine_uri(self) -> str:
        """The name for the engine, which takes a tag or a digest but not both, and a path for an image of this machine."""
        if self.scheme == "localimage":
            return self.rest
        return (replace(self, tag="") if self.digest else self).uri

    @property
    def file_name(self) -> str:
        """A name for the file that it becomes, as the engine would choose: NAME_TAG.sif."""
        if self.scheme in REGISTRY_SCHEMES:
            version = self.tag or self.digest.removeprefix("sha256:")[:12]
            return f"{self.repository.rpartition('/')[2]}_{version}.sif"
        name = self.rest.rstrip("/").rpartition("/")[2].split("@")[0]
        stem = re.sub(r"\.(sif|simg|tar(\.\w+)?|tgz)$", "", name)
        return re.sub(r"[^A-Za-z0-9._-]", "_", stem or "image") + ".sif"

    def is_same_image(self, other: Reference) -> bool:
        """Say whether `other` (what was fetched, with its digest) is what this name asks for."""
        if self.scheme not in REGISTRY_SCHEMES:
            return self.uri == other.uri
        mine, theirs = (self.scheme, self.host, self.repository), (other.scheme, other.host, other.repository)
        if mine != theirs:
            return False
        return self.digest == other.digest if self.digest else self.tag == other.tag


def parse_reference(text: str) -> Reference:
    """Take a name apart. Raises SpecError for what no registry or archive could have."""
    match = _URI.fullmatch(text)
    scheme, rest = (match["scheme"], match["rest"]) if match else ("", "")
    if scheme in REGISTRY_SCHEMES and rest.startswith("//"):
        return _parse_registry(text, scheme, rest.removeprefix("//"))
    if scheme in _OTHER_SCHEMES and len(rest) > 2 and rest.startswith("//"):
        return Reference(scheme, rest.removeprefix("//"))  # type: ignore[arg-type]  # one of the words of Scheme
    if text.startswith(("/", "./", "../", "~/")):
        return Reference("localimage", text)
    if scheme in FILE_SCHEMES:
        return Reference(scheme, re.sub(r"^//(?=.)", "", rest))  # type: ignore[arg-type]  # one of the words of Scheme
    raise SpecError(
        f"{text!r} is not the name of an image elsewhere",
        hint="write docker://NAME:TAG, oras://HOST/NAME:TAG, library://NAME:TAG, docker-archive:FILE, oci-archive:FILE or ./FILE",
    )


def _parse_registry(text: str, scheme: str, rest: str) -> Reference:
    name, _, digest = rest.partition("@")
    first, slash, others = name.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
    host, path = (first, others) if is_host else (_DOCKER_HUB, name)
    repository, _, tag = path.partition(":")
    if host in (_DOCKER_HUB, "index.docker.io"):
        host = _DOCKER_HUB
        # Names without an owner are Docker's own.
        repository = repository if "/" in repository else f"library/{repository}"
    is_good = _HOST.fullmatch(host) and _REPOSITORY.fullmatch(repository) and (not tag or _TAG.fullmatch(tag))
    if not is_good or ("@" in rest and not _DIGEST.fullmatch(digest)):
        raise SpecError(
            f"{text!r} is no name that a registry could have",
            hint="write HOST/NAME:TAG, in small letters, or HOST/NAME@sha256: and 64 digits and letters from a to f",
        )
    if not tag and not digest:
        tag = "latest"
    return Reference(scheme, rest, host=host, repository=repository, tag=tag, digest=digest)  # type: ignore[arg-type]  # one of the words of Scheme
