"""The ledger: one small file for each instance that we started on this host, so that a later process can find and end it.

Files have mode 0600 and are replaced atomically. The folder is named after the host, because homes are shared between hosts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..places import Places, make_private_dir, write_private_file
from .model import LedgerEntry


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
        files = sorted(places.ledger.glob("jpa-*.json"))
    except OSError:
        return
    entries = [entry for path in files if (entry := _load(path))]
    yield from sorted(entries, key=lambda entry: entry.started_at)


def iter_sharers(places: Places, shared: str) -> Iterator[LedgerEntry]:
    """Yield the entries of the kernels that share the instance `shared`; none for the empty name."""
    if shared:
        yield from (entry for entry in iter_entries(places) if entry.shared == shared)


def _load(path: Path) -> LedgerEntry | None:
    try:
        entry = LedgerEntry.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # A copy under another name could never be forgotten, for an entry is removed by its name.
    return entry if entry.name == path.stem else None
