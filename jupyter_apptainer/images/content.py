"""What an image says about itself, read without the engine: definition, labels, apps, compression, signatures, overlays.

SIF files, folders, and bare squashfs or ext3 files; the last two say little. An image may come from anybody: of its texts only
the first megabytes are read, and of a folder only plain files.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from .identity import ImageIdentity
from .sif import MAX_TEXT_BYTES, Sif, Signature, read_json, read_sif, read_text
from .squashfs import read_superblock

_MAX_APPS = 1000
# Written by the engine into each image; SingularityCE and Apptainer use the same words.
_BOOTSTRAP = "org.label-schema.usage.singularity.deffile.bootstrap"
_FROM = "org.label-schema.usage.singularity.deffile.from"
_MIRROR = "org.label-schema.usage.singularity.deffile.mirrorurl"
_OS_VERSION = "org.label-schema.usage.singularity.deffile.osversion"
_HEADER_LINE = re.compile(r"^\s*(bootstrap|from|osversion|mirrorurl)\s*:\s*(\S.*?)\s*$", re.IGNORECASE | re.MULTILINE)
_ENVIRONMENT = "/.singularity.d/env/90-environment.sh"
_REMOTE_AGENTS = ("docker", "oras", "library", "shub")


@dataclass(frozen=True)
class ImageContent:
    """What is in an image. Empty or None where it does not say.

    definition: the text that it was built from. origin: where it came from, as a URI or in words. compression, block_bytes: of
    its squashfs. signatures: made by whom; whether they are true, only `image verify` can tell. overlay_bytes: size of each
    overlay that is embedded. created_at: seconds since 1970. python, ipykernel: their versions, for `catalogue` to fill in.
    """

    architecture: str | None = None
    created_at: int | None = None
    origin: str | None = None
    definition: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    apps: tuple[str, ...] = ()
    runscript: str | None = None
    startscript: str | None = None
    environment: str | None = None
    help: str | None = None
    file_system: str | None = None
    compression: str | None = None
    block_bytes: int | None = None
    signatures: tuple[Signature, ...] = ()
    overlay_bytes: tuple[int, ...] = ()
    python: str | None = None
    ipykernel: str | None = None


def read_content(identity: ImageIdentity) -> ImageContent:
    """Read what the image says. Raises ImageCorrupt or ImageInvalid where it is damaged."""
    if identity.kind == "sif":
        return _read_sif(identity.path)
    if identity.kind == "sandbox":
        return _read_sandbox(identity.real_path)
    if identity.kind == "squashfs":
        block = read_superblock(identity.path)
        return ImageContent(
            created_at=block.created_at or None,
            file_system="squashfs",
            compression=block.compression,
            block_bytes=block.block_bytes,
        )
    return ImageContent(file_system="ext3")


def _read_sif(path: str) -> ImageContent:
    sif = read_sif(path)
    attributes = _read_attributes(sif)
    texts = [read_text(sif, each) for each in sif.find("definition")[:1]]
    labels = _clean_labels(attributes.get("labels")) or _read_old_labels(sif)
    definition = texts[0] if texts else _clean_text(attributes.get("deffile"))
    system = sif.system_partition
    kind = system.partition.file_system if system and system.partition else None
    block = read_superblock(path, system.offset) if system and kind == "squashfs" else None
    apps = attributes.get("apps")
    return ImageContent(
        architecture=sif.architecture,
        created_at=sif.created_at,
        origin=find_origin(labels, definition),
        definition=definition,
        labels=labels,
        apps=tuple(sorted(map(str, apps)))[:_MAX_APPS] if isinstance(apps, dict) else (),
        runscript=_clean_text(attributes.get("runscript")),
        startscript=_clean_text(attributes.get("startscript")),
        environment=_clean_environment(attributes.get("environment")),
        help=_clean_text(attributes.get("helpfile")),
        file_system=kind,
        compression=block.compression if block else None,
        block_bytes=block.block_bytes if block else None,
        signatures=tuple(each.signature for each in sif.objects if each.signature),
        overlay_bytes=tuple(each.size_bytes for each in sif.overlays),
    )


def _read_attributes(sif: Sif) -> Mapping[str, Any]:
    """Return what the engine's own `inspect` shows; images of Singularity before 3.6 have it in their file system only."""
    for each in sif.find("json"):
        if each.name == "inspect-metadata.json":
            data = read_json(sif, each).get("data")
            attributes = data.get("attributes") if isinstance(data, dict) else None
            return attributes if isinstance(attributes, dict) else {}
    return {}


def _read_old_labels(sif: Sif) -> dict[str, str]:
    return next((_clean_labels(read_json(sif, each)) for each in sif.find("labels")), {})


def _read_sandbox(root: str) -> ImageContent:
    folder = os.path.join(root, ".singularity.d")
    labels: dict[str, str] = {}
    with suppress(ValueError, RecursionError):
        labels = _clean_labels(json.loads(_read_plain_file(os.path.join(folder, "labels.json")) or "{}"))
    definition = _read_plain_file(os.path.join(folder, "Singularity"))
    return ImageContent(
        origin=find_origin(labels, definition),
        definition=definition,
        labels=labels,
        apps=_list_apps(os.path.join(root, "scif/apps")),
        runscript=_read_plain_file(os.path.join(folder, "runscript")),
        startscript=_read_plain_file(os.path.join(folder, "startscript")),
        environment=_clean_environment({_ENVIRONMENT: _read_plain_file(os.path.join(root, _ENVIRONMENT.lstrip("/")))}),
        help=_read_plain_file(os.path.join(folder, "runscript.help")),
        file_system="folder",
    )


def _read_plain_file(path: str) -> str | None:
    """Read a small file; None where it is absent, a link (it could lead out of the image) or a pipe (it would not end)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return stream.read(MAX_TEXT_BYTES).decode("utf-8", "replace")


def _list_apps(folder: str) -> tuple[str, ...]:
    try:
        with os.scandir(folder) as entries:
            return tuple(sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False)))[:_MAX_APPS]
    except OSError:
        return ()


def find_origin(labels: Mapping[str, str], definition: str | None) -> str | None:
    """Return where an image came from: `docker://python:3.12`, `debootstrap bookworm`, `localimage /path`; None if unknown."""
    header = {name.lower(): value for name, value in reversed(_HEADER_LINE.findall(definition or ""))}
    agent = labels.get(_BOOTSTRAP) or header.get("bootstrap")
    if not agent:
        return None
    if agent in _REMOTE_AGENTS:
        return f"{agent}://{labels.get(_FROM) or header.get('from', '')}"
    if agent in ("debootstrap", "yum", "dnf", "zypper"):
        words = (agent, labels.get(_OS_VERSION) or header.get("osversion"), labels.get(_MIRROR))
        return " ".join(word for word in words if word)
    return f"{agent} {labels.get(_FROM) or header.get('from', '')}".strip()


def _clean_labels(value: object) -> dict[str, str]:
    return {str(name): str(text) for name, text in value.items()} if isinstance(value, dict) else {}


def _clean_environment(value: object) -> str | None:
    """Return what a recipe's %environment became; the engine writes comments of its own in front of it."""
    text = value.get(_ENVIRONMENT) if isinstance(value, dict) else None
    lines = str(text or "").splitlines()
    return _clean_text("\n".join(line for line in lines if not line.startswith("#")).strip("\n"))


def _clean_text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None
