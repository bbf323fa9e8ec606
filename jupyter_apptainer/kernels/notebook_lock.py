"""Keep a lock in the metadata of a notebook, and let its kernel ask for exactly that image.

A reader with the image, under whatever name, gets it by its digest; one without it builds it again from the lock.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..errors import SpecError
from ..images.lock import NOTEBOOK_FIELD, Lock
from .notebook import FIELD, load_settings


def write_notebook_lock(lock: Lock, path: Path) -> None:
    """Write the lock, and `image` of the notebook's settings; all else in the file stays as it is. Raises SpecError."""
    settings = dict(load_settings(str(path)))
    document = _load(path)
    settings["image"] = f"{lock.image.name}@sha256:{lock.image.sha256}"
    document["metadata"] |= {FIELD: settings, NOTEBOOK_FIELD: lock.to_json()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # As nbformat writes notebooks.
        text = json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True)
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.chmod(path.stat().st_mode & 0o777)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _load(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"the notebook {path} cannot be read: {error.strerror}", hint="check the path") from error
    except ValueError as error:
        raise SpecError(f"{path} is no notebook: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("metadata"), dict):
        raise SpecError(f"{path} is no notebook: it has no metadata")
    return document
