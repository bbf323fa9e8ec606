"""What the commands about images need from settings and environment: folders, engine, ways to registries."""

from __future__ import annotations

import os
from pathlib import Path

from ..config import ApptainerConfig, load_config
from ..engine.locate import EngineInfo, get_engine
from ..images import choices
from ..images.catalogue import find_image_dirs
from ..images.transfer import Settings
from ..places import Places, find_places


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
    """Return where an image of this file name goes if nobody says."""
    return choices.choose_target(places, load_settings(), name)


def build_transfer_settings(*, no_https: bool) -> Settings:
    """Return how registries are reached. Raises SpecError where the file of certificates is not there."""
    return choices.build_transfer_settings(load_settings(), no_https=no_https)
