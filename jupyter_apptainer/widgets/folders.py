"""What lies in a folder, for a form's chooser."""

from __future__ import annotations

import os


def list_entries(path: str) -> tuple[str, ...]:
    """Return its names, without hidden ones: folders with a slash behind, then files; none where it cannot be read."""
    try:
        with os.scandir(os.path.expanduser(path) or ".") as entries:
            found = [(not entry.is_dir(), entry.name) for entry in entries if not entry.name.startswith(".")]
    except (OSError, ValueError):
        return ()
    return tuple(name if is_file else f"{name}/" for is_file, name in sorted(found))
