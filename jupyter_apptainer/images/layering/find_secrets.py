"""Look for secrets in what a step has left: a program for a build's namespace, where all its files can be read.

    find_secrets.py FOLDER <NEEDLES

NEEDLES: a line in hexadecimal digits for each. The exit status is 3 where one is found; what is found in, it prints.
It stands alone: nothing of the package is imported.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence

FOUND = 3
_BLOCK = 1 << 20


def main(argv: Sequence[str]) -> int:
    """Read all files and links below a folder."""
    needles = [bytes.fromhex(line) for line in sys.stdin.read().split()]
    found = False
    for folder, names, files in os.walk(argv[0]):
        for name in [*names, *files]:
            path = os.path.join(folder, name)
            if _has_needle(path, needles):
                print(f"A secret is in {os.path.relpath(path, argv[0])}", flush=True)
                found = True
    return FOUND if found else 0


def _has_needle(path: str, needles: Sequence[bytes]) -> bool:
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return any(needle in os.fsencode(os.readlink(path)) for needle in needles)
    if not stat.S_ISREG(status.st_mode):
        return False
    overlap = max(map(len, needles)) - 1
    kept = b""
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            text = kept + block
            if any(needle in text for needle in needles):
                return True
            kept = text[-overlap:] if overlap else b""
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
