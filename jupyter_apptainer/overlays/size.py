"""Sizes of overlays as people write them, and as they read them."""

from __future__ import annotations

import re

from ..errors import SpecError
from .ext3 import MIB

MINIMUM_MIB = 64
# Takes about 70 MiB of the disk until it is used, so it can be generous.
DEFAULT_MIB = 10240
_UNITS = {"": 1, "M": 1, "G": 1024, "T": 1024 * 1024}
_SIZE = re.compile(r"(\d+)(?:([MGT])(?:iB|B)?)?", re.IGNORECASE)


def parse_size_mib(text: str, *, least_mib: int = MINIMUM_MIB) -> int:
    """Read `512`, `512M`, `4G` or `1T` and return MiB. Raises SpecError."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise SpecError(f"{text!r} is not a size, expected MiB, or a number with M, G or T", hint="for example 4G")
    size = int(match[1]) * _UNITS[(match[2] or "").upper()]
    if size < least_mib:
        raise SpecError(f"{text!r} is too small: at least {least_mib} MiB are expected")
    return size


def format_bytes(count: int) -> str:
    """Write a number of bytes for people."""
    if count >= 1024 * MIB:
        return f"{count / (1024 * MIB):.1f} GiB"
    return f"{count / MIB:.0f} MiB"
