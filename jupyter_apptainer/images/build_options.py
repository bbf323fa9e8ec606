"""What a build is asked for besides its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .build_secrets import SecretSource

# For mksquashfs. Blocks of 32 KiB spare memory in the program that mounts the image; lz4 unpacks fastest.
COMPRESSIONS: Mapping[str, str] = {
    "lz4": "-comp lz4 -b 32K",
    "zstd": "-comp zstd -b 128K",
    "gzip": "-comp gzip -b 128K",
}
DEFAULT_LAYERS_BYTES = 10 * 2**30


@dataclass(frozen=True)
class BuildOptions:
    """compression: a name in COMPRESSIONS. is_forced: replace an image of that name.

    has_host_settings: the host's certificates, proxies, pip indexes and apt mirror reach %post, and do not stay. ca_bundle: the
    certificates, by default those that SSL_CERT_FILE and the like name. epoch: seconds since 1970, for an image that does
    not depend on the time at which it is made; None for SOURCE_DATE_EPOCH, and where that is not set, the time counts.
    no_https: registries that speak plain http, as HOST or HOST:PORT; "*" is all. secrets: for scripts, as files in /mnt/secrets.
    uses_layers: what earlier builds have made counts. layers_bytes: how much of this build is kept for later ones at most; 0
    for a build that neither uses layers nor keeps any.
    """

    compression: str = "lz4"
    is_forced: bool = False
    has_host_settings: bool = False
    ca_bundle: Path | None = None
    epoch: int | None = None
    no_https: tuple[str, ...] = ()
    secrets: tuple[SecretSource, ...] = ()
    uses_layers: bool = True
    layers_bytes: int = DEFAULT_LAYERS_BYTES
