"""Ask an image registry, over its HTTP interface, which digest a name has now, and whether a password is right.

The engine does the transfers; it does not tell what it fetched. So a name is resolved first, and the engine is asked for
that digest. Where a registry cannot be asked from here, the engine goes by the name alone, and its error is the one shown.
https://distribution.github.io/distribution/spec/api/
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import ipaddress
import json
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..engine.locate import EngineInfo
from ..errors import RegistryAuthError
from .reference import Reference

TIMEOUT_S = 15.0
_MAX_BYTES = 4 * 1024 * 1024
_DOCKER_HUB, _DOCKER_HUB_API = "docker.io", "registry-1.docker.io"
# Where `docker login` and the engine keep a password of Docker Hub.
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_MANIFEST_TYPES = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_SIF_LAYER = "application/vnd.sylabs.sif.layer.v1.sif"
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Access:
    """How to reach a registry. ca_bundle: a PEM file. credentials: user and password."""

    no_https: bool = False
    ca_bundle: str | None = None
    credentials: tuple[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class RemoteImage:
    """What a name stands for now. size_bytes: of the SIF file, where it is one; else None."""

    digest: str
    size_bytes: int | None


def resolve(reference: Reference, access: Access) -> RemoteImage | None:
    """Return what a name of docker:// or oras:// stands for; None where the registry does not tell us."""
    version = reference.digest or reference.tag
    path = f"/v2/{reference.repository}/manifests/{version}"
    for base in _list_bases(reference.host, access):
        try:
            answer = _get(base, path, access, scope=f"repository:{reference.repository}:pull")
        except (OSError, http.client.HTTPException, ValueError):
            continue
        return _parse_manifest(answer)
    return None


def check_credentials(host: str, access: Access) -> None:
    """Raise RegistryAuthError where the registry refuses the user and password; where it cannot be asked, nothing."""
    for base in _list_bases(host, access):
        try:
            _get(base, "/v2/", access, scope="")
            return
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                user = access.credentials[0] if access.credentials else "nobody"
                raise RegistryAuthError(
                    f"the registry {host} does not accept this password of {user}",
                    hint="some registries want a token in place of the password: their web page makes one",
                ) from None
        except (OSError, http.client.HTTPException, ValueError):
            continue


def load_credentials(engine: EngineInfo, host: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Return user and password for a registry as the engine would use them: from its variables, else from its login file."""
    prefix = "APPTAINER" if engine.flavour == "apptainer" else "SINGULARITY"
    user, password = (environ.get(f"{prefix}_DOCKER_{name}") for name in ("USERNAME", "PASSWORD"))
    if user and password:
        return user, password
    folder = Path(environ.get(f"{prefix}_CONFIGDIR") or Path(environ.get("HOME", "")) / engine.dot_folder)
    keys = (_DOCKER_HUB_KEY, _DOCKER_HUB, _DOCKER_HUB_API) if host == _DOCKER_HUB else (host, f"https://{host}")
    # The second name is that of older engines, which also read the file of Docker itself.
    for name in ("config.json", "docker-config.json"):
        for key in keys:
            if found := _read_login(folder / name, key):
                return found
    return None


def is_loopback(host: str) -> bool:
    """Say whether a registry is on this machine; there the engine tries plain http by itself."""
    name = urllib.parse.urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _read_login(path: Path, key: str) -> tuple[str, str] | None:
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))["auths"][key]["auth"]
        user, colon, password = base64.b64decode(entry, validate=True).decode().partition(":")
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (user, password) if colon else None


def _list_bases(host: str, access: Access) -> list[str]:
    name = _DOCKER_HUB_API if host == _DOCKER_HUB else host
    return [f"https://{name}"] + ([f"http://{name}"] if access.no_https or is_loopback(host) else [])


@dataclass(frozen=True)
class _Answer:
    headers: Mapping[str, str]
    body: bytes


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A manifest is never elsewhere, and a password must not be sent on to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _get(base: str, path: str, access: Access, *, scope: str) -> _Answer:
    """Send one request, and once more with what the registry's challenge asks for."""
    opener = _build_opener(access)
    try:
        return _send(opener, base + path, {})
    except urllib.error.HTTPError as error:
        if error.code != 401:
            raise
        challenge = error.headers.get("WWW-Authenticate", "")
        # A password that came over TLS goes on over TLS only.
        schemes = ("https://", "http://") if base.startswith("http://") else ("https://",)
        authorization = _answer_challenge(opener, challenge, access.credentials, scope, schemes)
        if authorization is None:
            raise
    return _send(opener, base + path, {"Authorization": authorization})


def _answer_challenge(
    opener: urllib.request.OpenerDirector,
    challenge: str,
    credentials: tuple[str, str] | None,
    scope: str,
    schemes: tuple[str, ...],
) -> str | None:
    """Return the header that a challenge asks for, None where we have none."""
    kind = challenge.partition(" ")[0].lower()
    basic = None
    if credentials:
        basic = "Basic " + base64.b64encode(":".join(credentials).encode()).decode()
    if kind == "basic":
        return basic
    words = dict(_CHALLENGE.findall(challenge))
    realm = words.get("realm", "")
    if kind != "bearer" or not realm.startswith(schemes):
        return None
    wanted = {"service": words.get("service", ""), "scope": words.get("scope") or scope}
    query = urllib.parse.urlencode({name: value for name, value in wanted.items() if value})
    answer = json.loads(_send(opener, f"{realm}?{query}", {"Authorization": basic} if basic else {}).body)
    token = answer.get("token") or answer.get("access_token")
    return f"Bearer {token}" if token else None


def _build_opener(access: Access) -> urllib.request.OpenerDirector:
    context = ssl.create_default_context()
    if access.ca_bundle:
        # As well as the system's, as the engine has it.
        context.load_verify_locations(access.ca_bundle)
    return urllib.request.build_opener(_NoRedirects, urllib.request.HTTPSHandler(context=context))


def _send(opener: urllib.request.OpenerDirector, url: str, headers: Mapping[str, str]) -> _Answer:
    request = urllib.request.Request(url, headers={"Accept": _MANIFEST_TYPES, **headers})
    with opener.open(request, timeout=TIMEOUT_S) as response:
        return _Answer(dict(response.headers.items()), response.read(_MAX_BYTES))


def _parse_manifest(answer: _Answer) -> RemoteImage | None:
    """Take digest and size from a manifest. The digest is computed: what a header says is only compared."""
    digest = "sha256:" + hashlib.sha256(answer.body).hexdigest()
    said = {name.lower(): value for name, value in answer.headers.items()}.get("docker-content-digest", digest)
    if said != digest and _DIGEST.fullmatch(said):
        return None
    try:
        layers = json.loads(answer.body).get("layers") or []
        sizes = [int(layer["size"]) for layer in layers if layer.get("mediaType") == _SIF_LAYER]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return RemoteImage(digest, sizes[0] if sizes else None)
