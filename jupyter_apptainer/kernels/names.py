"""What a kernel's instance and folders are called: unique for each kernel, or derived from the name that kernels share."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from ..errors import ConnectionImpossible
from ..instances.model import SPARE_PREFIX
from ..places import Places
from .connection import fits_socket


@dataclass(frozen=True)
class Names:
    """entry: of the ledger. instance_dir: the folder that the instance binds, private_dir or, where it is shared, above that."""

    entry: str
    instance: str
    instance_dir: str
    private_dir: str
    scratch_dir: str


def build_shared_name(places: Places, shared: str) -> str:
    """Return the engine's name of the instance for `shared:NAME`."""
    return f"jpa-shared-{shared}-{_build_key(places, shared)}"


def _build_key(places: Places, shared: str) -> str:
    # The engine's names are a user's own; another JUPYTER_APPTAINER_HOME is another ledger.
    return hashlib.sha256(f"{places.ledger}\0{shared}".encode()).hexdigest()[:8]


def build_names(places: Places, kernel_id: str, token: str, shared: str = "") -> Names:
    """Choose them. token: unique; shared: NAME of `shared:NAME`, whose names are the same for each kernel with it.

    Raises ConnectionImpossible where no folder is short enough for sockets.
    """
    entry = build_instance_name(kernel_id, token)
    if not shared:
        private_dir = find_private_dir(places, token)
        return Names(entry, entry, private_dir, private_dir, str(places.scratch / token))
    folder = "s" + _build_key(places, shared)
    private_dir = find_private_dir(places, f"{folder}/{token}")
    instance = build_shared_name(places, shared)
    return Names(entry, instance, os.path.dirname(private_dir), private_dir, str(places.scratch / folder))


def build_spare_names(places: Places, token: str) -> Names:
    """Choose those of an instance that is started before its kernel is known."""
    private_dir = find_private_dir(places, token)
    name = SPARE_PREFIX + token
    return Names(name, name, private_dir, private_dir, str(places.scratch / token))


def build_instance_name(kernel_id: str, token: str) -> str:
    """Return a name for an instance: ours by its prefix, unique by its token. A client may have chosen the kernel's id."""
    readable = "".join(char for char in kernel_id if char.isascii() and char.isalnum())[:8]
    return f"jpa-{readable or 'kernel'}-{token}"


def find_private_dir(places: Places, token: str) -> str:
    """Return a folder for sockets, short enough for them: below the runtime folder, else below /tmp."""
    for base in (str(places.runtime), f"/tmp/jpa-{os.getuid()}"):
        candidate = os.path.join(base, token)
        if fits_socket(candidate):
            return candidate
    raise ConnectionImpossible(f"the path {places.runtime} is too long for sockets", hint="unset XDG_RUNTIME_DIR")
