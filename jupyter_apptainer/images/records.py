"""What was pulled: for each image that came from elsewhere, its name there, its digest, and the file that it is here.

So a kernel whose image is a name finds its file at once; a name is never looked up in a registry at a start. One small file
for each, in a folder of ours. A record counts only while its file is as it was.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import SpecError
from ..places import Places, make_private_dir, write_private_file
from .reference import Reference, parse_reference


@dataclass(frozen=True)
class PullRecord:
    """uri: what was asked for, in full. digest: of the registry's manifest; empty where there is none. path: the file here."""

    uri: str
    digest: str
    path: str
    size_bytes: int
    mtime_ns: int
    pulled_at: float

    @property
    def is_current(self) -> bool:
        """The file is there, and as it was."""
        try:
            status = os.stat(self.path)
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.size_bytes, self.mtime_ns)

    @property
    def reference(self) -> Reference:
        """The name with the digest that it had."""
        found = parse_reference(self.uri)
        return Reference(**{**asdict(found), "digest": found.digest or self.digest})


def build_record(reference: Reference, digest: str, path: str, pulled_at: float) -> PullRecord:
    """Make the record of a file that is there now."""
    status = os.stat(path)
    return PullRecord(reference.uri, digest, os.path.abspath(path), status.st_size, status.st_mtime_ns, pulled_at)


def save_record(places: Places, record: PullRecord) -> None:
    """Write or replace the record of this name and file. A file may have several names: tags of the same image."""
    make_private_dir(places.pulled)
    key = hashlib.sha256(os.fsencode(f"{record.uri}\0{record.path}")).hexdigest()[:24]
    write_private_file(places.pulled / f"{key}.json", json.dumps(asdict(record), indent=1))


def remove_record(places: Places, path: str) -> None:
    """Forget all names of the file. Forgetting twice is no error."""
    for kept in places.pulled.glob("*.json"):
        record = _load(kept)
        if record and record.path == path:
            kept.unlink(missing_ok=True)


def iter_records(places: Places) -> Iterator[PullRecord]:
    """Yield all records, newest first, also those whose file has changed or is gone."""
    found = [record for path in places.pulled.glob("*.json") if (record := _load(path))]
    yield from sorted(found, key=lambda record: record.pulled_at, reverse=True)


def find_record(places: Places, path: str) -> PullRecord | None:
    """Return the newest record of a file, None where it was not pulled or has changed since."""
    absolute = os.path.abspath(path)
    return next((record for record in iter_records(places) if record.path == absolute and record.is_current), None)


def find_pulled(places: Places, uri: str) -> PullRecord | None:
    """Return the newest file that was pulled from this name, None where there is none. Nothing is fetched.

    A name with a digest finds exactly that image, whatever its tag was.
    """
    try:
        wanted = parse_reference(uri)
    except SpecError:
        return None
    matching = (record for record in iter_records(places) if wanted.is_same_image(record.reference))
    return next((record for record in matching if record.is_current), None)


def _load(path: Path) -> PullRecord | None:
    try:
        record = PullRecord(**json.loads(path.read_text(encoding="utf-8")))
        parse_reference(record.uri)
    except (OSError, ValueError, TypeError):
        return None
    return record
