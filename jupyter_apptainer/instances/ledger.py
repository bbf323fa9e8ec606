"""The ledger: one small file for each instance that we started on this host, so that a later process can find and end it.

Files have mode 0600 and are replaced atomically. The folder is named after the host, because homes are shared between hosts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..places import Places, make_private_dir, write_private_file
from .model import LedgerEntry

_SETTLED_NS = 200_000_000
_MANY = 1000
_seen: dict[str, tuple[tuple[int, int, int], LedgerEntry]] = {}


def save_entry(places: Places, entry: LedgerEntry) -> Path:
    """Write or replace the entry."""
    make_private_dir(places.ledger)
    # Without `indent` it is C that writes; a start does this five times.
    return write_private_file(places.ledger / f"{entry.name}.json", json.dumps(entry.to_json()))


def load_entry(places: Places, name: str) -> LedgerEntry | None:
    """Read one entry; None where there is none, or where the file is not one of ours."""
    return _load(places.ledger / f"{name}.json")


def remove_entry(places: Places, name: str) -> None:
    """Forget an instance that is gone. Forgetting twice is no error."""
    with suppress(FileNotFoundError):
        (places.ledger / f"{name}.json").unlink()


def iter_entries(places: Places) -> Iterator[LedgerEntry]:
    """Yield all entries of this host, oldest first."""
    try:
        names = [name for name in os.listdir(places.ledger) if name.startswith("jpa-") and name.endswith(".json")]
    except OSError:
        return
    entries = [entry for name in sorted(names) if (entry := _look(str(places.ledger), name))]
    yield from sorted(entries, key=lambda entry: entry.started_at)


def iter_sharers(places: Places, shared: str) -> Iterator[LedgerEntry]:
    """Yield the entries of the kernels that share the instance `shared`; none for the empty name."""
    if shared:
        yield from (entry for entry in iter_entries(places) if entry.shared == shared)


def _look(folder: str, name: str) -> LedgerEntry | None:
    """Read an entry where it has changed since it was read last: a server with many kernels looks at all of them at each start."""
    path = os.path.join(folder, name)
    try:
        status = os.stat(path)
    except OSError:
        return None
    mark = (status.st_ino, status.st_size, status.st_mtime_ns)
    known = _seen.get(path)
    if known is not None and known[0] == mark:
        return known[1]
    entry = _load(Path(path))
    _seen.pop(path, None)
    # A file that was written just now may be replaced within the same tick of the clock, by one of the same size and place.
    if entry is not None and time.time_ns() - status.st_mtime_ns > _SETTLED_NS:
        if len(_seen) >= _MANY:
            _seen.clear()
        _seen[path] = (mark, entry)
    return entry


def _load(path: Path) -> LedgerEntry | None:
    try:
        entry = LedgerEntry.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # A copy under another name could never be forgotten, for an entry is removed by its name.
    return entry if entry.name == path.stem else None
