"""Where the log of this start of an instance begins: the engine appends to one file for all starts of a name."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from ..engine.options import InstanceRow
from ..instances.process import ProcessIdentity
from ..instances.start import find_engine_folders
from ..places import make_private_dir, write_private_file
from .context import Context


@dataclass(frozen=True)
class LogStart:
    """Bytes of the two logs that are of earlier starts."""

    out: int
    err: int


def measure_logs(context: Context, name: str) -> LogStart:
    """Look how long the logs are, before the engine appends to them."""
    folder = Path(find_engine_folders(context.engine, context.environ, context.places.hostname).log_dir)
    return LogStart(_get_size(folder / f"{name}.out"), _get_size(folder / f"{name}.err"))


def save_start(context: Context, row: InstanceRow, start: LogStart) -> None:
    """Remember it for the instance as it runs now."""
    init = ProcessIdentity.find(row.pid)
    if init is None:
        return
    path = _find_file(context, row.name)
    make_private_dir(path.parent)
    write_private_file(path, json.dumps({"init": init.to_json(), "out": start.out, "err": start.err}))


def load_start(context: Context, row: InstanceRow) -> LogStart | None:
    """Return it where it is that of the instance as it runs now."""
    try:
        record = json.loads(_find_file(context, row.name).read_text())
        init = ProcessIdentity.from_json(record["init"])
        start = LogStart(int(record["out"]), int(record["err"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return start if init == ProcessIdentity.find(row.pid) else None


def forget_start(context: Context, name: str) -> None:
    """Remove what was remembered of an instance that has ended."""
    _find_file(context, name).unlink(missing_ok=True)


def read_logs(row: InstanceRow, start: LogStart) -> tuple[str, str]:
    """Return what the instance has printed to both streams since then."""
    return _read_from(row.log_out_path, start.out), _read_from(row.log_err_path, start.err)


def _find_file(context: Context, name: str) -> Path:
    return context.places.data / "services" / context.places.hostname / f"{name}.json"


def _get_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _read_from(path: str, offset: int) -> str:
    try:
        with open(path, "rb") as stream:
            # A log that is shorter than it was is another one.
            stream.seek(offset if offset <= os.fstat(stream.fileno()).st_size else 0)
            return stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
