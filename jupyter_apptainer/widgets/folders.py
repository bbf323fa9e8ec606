"""The folders that lie in a folder, for a form's chooser."""

from __future__ import annotations

import os


def list_folders(path: str) -> tuple[str, ...]:
    """Return their names, without hidden ones; none where it cannot be read."""
    try:
        with os.scandir(os.path.expanduser(path) or ".") as entries:
            return tuple(sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()))
    except (OSError, ValueError):
        return ()
