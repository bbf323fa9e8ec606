"""The server's list of sessions (which notebook has which kernel), kept where the next server finds it."""

from __future__ import annotations

import atexit
import sqlite3
from contextlib import closing, suppress
from typing import Any, NamedTuple

from ..instances.janitor import find_owner_dir, remove_tree
from ..instances.ledger import iter_entries
from ..instances.process import ProcessIdentity
from ..places import find_places, make_private_dir

_FILE = "sessions.db"
_IN_MEMORY = ":memory:"


class SessionRow(NamedTuple):
    """One session, as jupyter_server stores it."""

    session_id: str
    path: str
    name: str
    type: str


def keep_sessions(serverapp: Any) -> None:
    """Have the sessions kept in a file. Who has configured a file of their own keeps that, and jupyter_server does the rest."""
    manager = serverapp.session_manager
    if manager.database_filepath != _IN_MEMORY:
        return
    owner = ProcessIdentity.current()
    folder = make_private_dir(find_owner_dir(find_places(), owner))
    manager.database_filepath = str(folder / _FILE)
    # Opened now: whatever is wrong with the folder is seen at the server's start.
    assert manager.cursor is not None
    # Not at the server's shutdown: a server without a terminal skips that when it is interrupted.
    atexit.register(_remove_sessions, owner)


def _remove_sessions(owner: ProcessIdentity) -> None:
    """Remove the file at the end of a server that leaves no kernel; a forked child of the server leaves it alone."""
    places = find_places()
    is_needed = any(entry.owner == owner and entry.persist is not False for entry in iter_entries(places))
    if not is_needed and owner == ProcessIdentity.current():
        remove_tree(str(find_owner_dir(places, owner)))


def find_session(owner: ProcessIdentity, kernel_id: str) -> SessionRow | None:
    """Look up what a server that is gone has kept about a kernel."""
    path = find_owner_dir(find_places(), owner) / _FILE
    if not path.exists():
        return None
    query = "SELECT session_id, path, name, type FROM session WHERE kernel_id = ?"
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        row = connection.execute(query, (kernel_id,)).fetchone()
        return SessionRow(*row) if row else None
    return None
