"""What the commands about images need from settings and environment: folders, engine, ways to registries."""

from __future__ import annotations

import os
from pathlib import Path

from ..config import ApptainerConfig, load_config
from ..engine.locate import EngineInfo, get_engine
from ..errors import SpecError
from ..images.catalogue import find_image_dirs
from ..images.host_settings import find_ca_bundle
from ..images.transfer import Settings
from ..places import Places, find_places, make_private_dir


def load_settings() -> ApptainerConfig:
    """Read this account's settings."""
    return ApptainerConfig(config=load_config())


def find_engine_and_places() -> tuple[EngineInfo, Places]:
    """Return the engine and our folders. Raises EngineNotFound."""
    places = find_places()
    return get_engine(load_settings().engine_path or None, places=places), places


def find_folders(places: Places) -> list[Path]:
    """Return the folders for images."""
    return find_image_dirs(places, load_settings().image_dirs, os.environ)


def choose_target(places: Places, name: str) -> Path:
    """Return where an image of this file name goes if nobody says: the first configured folder that is there, else our own."""
    folder = next((path for path in find_folders(places) if path.is_dir()), None)
    return (folder or make_private_dir(places.images)) / name


def build_transfer_settings(*, no_https: bool) -> Settings:
    """Return how registries are reached. Raises SpecError where the file of certificates is not there."""
    settings = load_settings()
    bundle = os.path.expanduser(settings.ca_bundle)
    if bundle and not os.path.isfile(bundle):
        raise SpecError(f"ca_bundle: {bundle!r} is no file; expected a file of certificates in PEM format")
    found = bundle or find_ca_bundle(os.environ)
    return Settings(no_https=("*",) if no_https else tuple(settings.no_https), ca_bundle=str(found) if found else None)
