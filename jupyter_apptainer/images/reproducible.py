"""The same recipe, the same bytes: what of a build depends on its time, and how that is settled.

Times that are later than a given one, the epoch, become the epoch: mksquashfs does so for files, and this module for what is
written in files. https://reproducible-builds.org/docs/source-date-epoch/
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from ..errors import SpecError

VARIABLE = "SOURCE_DATE_EPOCH"
DATE_LABEL = "org.label-schema.build-date"
# What programs write down about their own runs; nothing reads it in a container.
_LOGS = (
    "var/log/dpkg.log",
    "var/log/alternatives.log",
    "var/log/bootstrap.log",
    "var/log/apt/history.log",
    "var/log/apt/term.log",
    "var/log/apt/eipp.log.xz",
    "var/cache/ldconfig/aux-cache",
    "var/cache/debconf/templates.dat-old",
    "var/cache/debconf/config.dat-old",
)
# Of Python's bytecode since 3.7 (PEP 552): magic number, flags, then time and size of the source, or a digest of it.
_MAGICS = range(3390, 20000)
_HASHED_AND_CHECKED = 3
_DAY_S = 86400
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def load_epoch(environ: Mapping[str, str]) -> int | None:
    """Return SOURCE_DATE_EPOCH, None where it is not set. Raises SpecError where it is no time."""
    text = environ.get(VARIABLE, "")
    if text and not (text.isascii() and text.isdigit()):
        raise SpecError(f"{VARIABLE}: {text!r} is no time; expected seconds since 1970, as `date +%s` prints")
    return int(text) if text else None


def build_epoch_variables(epoch: int) -> dict[str, str]:
    """Return the variables that scripts of a build see. Sets of Python have an order by chance otherwise."""
    return {VARIABLE: str(epoch), "PYTHONHASHSEED": "0"}


def settle_tree(root: Path, epoch: int) -> None:
    """Remove from an unpacked image what depends on the time at which it was made. Files of other owners are left."""
    _settle_labels(root, epoch)
    for name in _LOGS:
        with suppress(OSError):
            _find_inside(root, name).unlink()
    with suppress(OSError):
        _settle_shadow(_find_inside(root, "etc/shadow"), epoch)
    for path in _iter_bytecode(root):
        with suppress(OSError, struct.error):
            _settle_bytecode(path, epoch)


def build_settle_program(root: Path, epoch: int) -> tuple[str, ...]:
    """Return a command that settles a tree, for where its files have owners that this process does not see."""
    above = Path(__file__).resolve().parents[2]
    code = (
        f"import sys; sys.path.insert(0, sys.argv[1]); from {__name__} import settle_tree; from pathlib import Path; "
    )
    code += "settle_tree(Path(sys.argv[2]), int(sys.argv[3]))"
    return (sys.executable, "-I", "-S", "-c", code, str(above), str(root), str(epoch))


def format_build_date(epoch: int) -> str:
    """Return a time as the engine's label has it: `Sunday_22_November_2026_11:23:2_UTC`."""
    when = time.gmtime(epoch)
    weekday, month = _WEEKDAYS[when.tm_wday], _MONTHS[when.tm_mon - 1]
    clock = f"{when.tm_hour}:{when.tm_min}:{when.tm_sec}"
    return f"{weekday}_{when.tm_mday}_{month}_{when.tm_year}_{clock}_UTC"


def _find_inside(root: Path, name: str) -> Path:
    """Return the path of a plain file of the image. A link could lead to a file of the host: FileNotFoundError."""
    path = root / name
    if path.is_symlink() or not path.is_file() or path.resolve() != root.resolve() / name:
        raise FileNotFoundError(name)
    return path


def _settle_labels(root: Path, epoch: int) -> None:
    try:
        path = _find_inside(root, ".singularity.d/labels.json")
    except FileNotFoundError:
        return
    labels = json.loads(path.read_text(encoding="utf-8"))
    if DATE_LABEL in labels:
        labels[DATE_LABEL] = format_build_date(epoch)
    path.write_text(json.dumps(labels, indent="\t", sort_keys=True), encoding="utf-8")


def _settle_shadow(path: Path, epoch: int) -> None:
    """The third field of shadow(5) is the day of the last change."""
    rows = [line.split(":") for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        if len(row) > 2 and row[2].isdigit():
            row[2] = str(min(int(row[2]), epoch // _DAY_S))
    path.write_text("".join(":".join(row) + "\n" for row in rows), encoding="utf-8")


def _iter_bytecode(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        paths = (Path(folder, name) for name in names if name.endswith(".pyc"))
        yield from (path for path in paths if path.is_file() and not path.is_symlink())


def _settle_bytecode(path: Path, epoch: int) -> None:
    """Make bytecode go by the time that its source will have; Python would not use it otherwise, and compile at each start.

    Bytecode that goes by a digest is always used, but its source is read each time: with a new one, the time serves as well.
    """
    with path.open("r+b") as stream:
        magic, flags, stamp = struct.unpack("<H2xII", stream.read(12))
        if magic not in _MAGICS:
            # Before 3.7 there were no flags.
            if flags > epoch:
                stream.seek(4)
                stream.write(struct.pack("<I", epoch))
        elif flags == 0 and stamp > epoch:
            stream.seek(8)
            stream.write(struct.pack("<I", epoch))
        elif flags == _HASHED_AND_CHECKED and path.stat().st_mtime > epoch:
            status = _find_source(path).stat()
            stream.seek(4)
            stream.write(struct.pack("<III", 0, min(int(status.st_mtime), epoch), status.st_size & 0xFFFFFFFF))


def _find_source(path: Path) -> Path:
    folder = path.parent.parent if path.parent.name == "__pycache__" else path.parent
    return folder / f"{path.name.split('.')[0]}.py"
