"""A panel over folders of its own, with one real image in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_apptainer.places import Places, find_places
from jupyter_apptainer.widgets.context import PanelContext, find_context


@pytest.fixture
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """Folders that no other test writes to."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("JUPYTER_APPTAINER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    found = find_places()
    found.images.mkdir(parents=True)
    return found


@pytest.fixture
def context(own_places: Places, starter_image: Path) -> PanelContext:
    """What the panel finds: the engine, and the starter image."""
    (own_places.images / "starter.sif").symlink_to(starter_image)
    found = find_context()
    assert not found.obstacle
    return found
