"""The image that a recipe begins with, as people name it: `python:3.12-slim`, `oras://…`, `oci-archive:FILE`, `./image.sif`."""

from __future__ import annotations

import os
from dataclasses import dataclass

# Not an image: a system that debootstrap makes of the packages of this host's mirror.
MIRROR = "mirror"

_URI_AGENTS = ("docker", "oras", "library", "shub")
_FILE_AGENTS = ("docker-archive", "oci-archive", "oci", "localimage", "docker-daemon")


@dataclass(frozen=True)
class Base:
    """agent and reference as in `Bootstrap:` and `From:`."""

    agent: str
    reference: str


def parse_base(text: str) -> Base:
    """Read the name of an image; a bare name is one of a registry, unless there is such a file or folder."""
    if text == "scratch":
        return Base("scratch", "")
    scheme, colon, rest = text.partition("://")
    if colon and scheme in _URI_AGENTS:
        return Base(scheme, rest)
    agent, colon, rest = text.partition(":")
    if colon and agent in _FILE_AGENTS:
        return Base(agent, rest.removeprefix("//"))
    if text.startswith(("/", "./", "../", "~")) or text.endswith(".sif"):
        return Base("localimage", os.path.expanduser(text))
    return Base("docker", text)
