"""What an account's settings say about images: where they go, and how registries are reached."""

from __future__ import annotations

import os
from pathlib import Path

from ..config import ApptainerConfig
from ..errors import SpecError
from ..places import Places, make_private_dir
from .catalogue import find_image_dirs
from .host_settings import find_ca_bundle
from .transfer import Settings


def choose_target(places: Places, settings: ApptainerConfig, name: str) -> Path:
    """Return where an image of this file name goes if nobody says: the first configured folder that is there, else our own."""
    folders = find_image_dirs(places, settings.image_dirs, os.environ)
    folder = next((path for path in folders if path.is_dir()), None)
    return (folder or make_private_dir(places.images)) / name


def build_transfer_settings(settings: ApptainerConfig, *, no_https: bool) -> Settings:
    """Return how registries are reached. Raises SpecError where the file of certificates is not there."""
    bundle = os.path.expanduser(settings.ca_bundle)
    if bundle and not os.path.isfile(bundle):
        raise SpecError(f"ca_bundle: {bundle!r} is no file; expected a file of certificates in PEM format")
    found = bundle or find_ca_bundle(os.environ)
    return Settings(no_https=("*",) if no_https else tuple(settings.no_https), ca_bundle=str(found) if found else None)
