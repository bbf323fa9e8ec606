"""What can stand in a definition below `%%apptainer build`: sections, and the words of the header."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..images.recipes.check import HEADERS
from ..images.recipes.definition import APP_SECTIONS, SECTIONS
from .model import Completion

_MEANINGS: Mapping[str, str] = {
    "arguments": "values for {{ name }}, which --build-arg may replace",
    "environment": "variables for every program in the image",
    "files": "files of the host, copied into the image",
    "help": "shown by `run-help`",
    "labels": "name and value, shown by `inspect`",
    "post": "commands that make the image",
    "pre": "commands on the host, before all others",
    "runscript": "what `run` runs",
    "setup": "commands on the host, before %post",
    "startscript": "what `instance start` runs",
    "test": "commands at the end of the build, and for `test`",
}
_AGENTS: Mapping[str, str] = {
    "docker": "From: NAME:TAG, an image of a registry",
    "oras": "From: HOST/NAME:TAG, a SIF in a registry",
    "library": "From: a library's name",
    "localimage": "From: FILE.sif or a folder",
    "debootstrap": "OSVersion: and MirrorURL: of Debian or Ubuntu",
    "dnf": "OSVersion: and MirrorURL: of Fedora and its kin",
    "scratch": "nothing to begin with",
    "docker-archive": "From: a file of docker save",
    "oci-archive": "From: an OCI layout in a tar file",
    "oci": "From: a folder with an OCI layout",
}
_HEADER_VALUE = re.compile(r"\s*bootstrap:\s*(?P<begun>\S*)\Z", re.IGNORECASE)


_BUILD_CELL = re.compile(r"\s*%%apptainer\s(?:[^\n]*\s)?build\s(?![^\n]*--(?:dockerfile|environment|requirements))")


def is_definition(cell: str) -> bool:
    """Say whether a definition stands below the first line."""
    return bool(_BUILD_CELL.match(cell))


def complete_definition(cell: str) -> tuple[str, Sequence[Completion]] | None:
    """cell: up to the cursor.

    Returns the word that is begun and what it may become; None where a script's own words stand, and where there is no definition.
    """
    if not is_definition(cell):
        return None
    *above, line = cell.split("\n")
    begun = line.lstrip()
    if begun.startswith("%"):
        sections = [Completion(f"%{name}", _MEANINGS.get(name, "of one app")) for name in (*SECTIONS, *APP_SECTIONS)]
        return begun, [each for each in sections if each.text.startswith(begun)]
    if any(text.lstrip().startswith("%") for text in above[1:]):
        return None
    value = _HEADER_VALUE.match(line)
    if value:
        agents = [Completion(name, what) for name, what in _AGENTS.items()]
        return value["begun"], [each for each in agents if each.text.startswith(value["begun"].lower())]
    if ":" in begun:
        return None
    headers = [Completion(f"{_write(name)}: ", "header") for name in HEADERS]
    return begun, [each for each in headers if each.text.lower().startswith(begun.lower())]


def _write(header: str) -> str:
    special = {"osversion": "OSVersion", "mirrorurl": "MirrorURL", "updateurl": "UpdateURL"}
    return special.get(header, header.capitalize())
