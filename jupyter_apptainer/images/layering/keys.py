"""What a layer depends on, as a digest: two steps with the same key would make the same layer."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..ingredients import BaseDigests, name_base
from ..recipes.definition import Stage
from ..reference import REGISTRY_SCHEMES
from .store import shorten_key

# Another way of making layers makes other layers.
_VERSION = 2
_BLOCK = 1 << 20
# Made of what a mirror has at the time, as everything that %post fetches.
_MIRRORED = ("scratch", "debootstrap", "yum", "dnf", "zypper", "arch", "busybox")


class Unlayerable(Exception):
    """This recipe cannot be built in layers, or not here; the reason is for people."""


def compute_key(*parts: Any) -> str:
    """Return the key of a step. parts: what JSON can hold."""
    return shorten_key(hashlib.sha256(json.dumps([_VERSION, *parts], sort_keys=True).encode()).hexdigest())


def compute_base_key(bases: BaseDigests, stage: Stage, folder: Path) -> tuple[str, str]:
    """Return the key of what a stage begins with, and the value of `From:` that means just this. Raises Unlayerable."""
    headers = sorted((header.key, header.value) for header in stage.headers if header.key != "stage")
    value = name_base(stage).partition(":")[2]
    digest = bases.find(stage, folder)
    if not digest and stage.agent not in _MIRRORED:
        raise Unlayerable(f"nobody tells the digest of {name_base(stage)}")
    pinned = _pin(value, digest) if stage.agent in REGISTRY_SCHEMES else value
    key = compute_key("base", bases.engine.version_text, os.uname().machine, headers, digest)
    return key, str(folder / value) if stage.agent == "localimage" else pinned


def compute_file_digest(path: Path) -> str:
    """Return the SHA-256 of a file. Raises Unlayerable where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise Unlayerable(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def describe_tree(path: Path) -> list[Any]:
    """Return what `cp -Lr` of a file or folder would copy: names, modes, digests. Raises Unlayerable where it cannot be read."""
    found: list[Any] = []
    try:
        _describe(path, ".", found, ())
    except OSError as error:
        raise Unlayerable(f"{error.filename or path} cannot be read: {error.strerror}") from error
    return found


def _describe(path: Path, name: str, found: list[Any], above: Sequence[tuple[int, int]]) -> None:
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode):
        if not stat.S_ISREG(status.st_mode):
            raise Unlayerable(f"{path} is neither a file nor a folder")
        found.append([name, mode, compute_file_digest(path)])
        return
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise Unlayerable(f"{path} leads back to a folder above it")
    found.append([name, mode])
    for child in sorted(path.iterdir()):
        _describe(child, f"{name}/{child.name}", found, (*above, identity))


def _pin(value: str, digest: str) -> str:
    if "@" in value:
        return value
    name, colon, tag = value.rpartition(":")
    return f"{name if colon and '/' not in tag else value}@{digest}"
