"""Copy what %files names into an image's folder, by the engine's rules: a program for a build's namespace.

    copy_files.py LIST ROOT

LIST: a JSON file, a list of [source, destination]. A destination is looked up inside ROOT, whatever links there are in it.
It stands alone: nothing of the package is imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

_MAX_LINKS = 255


def main(argv: Sequence[str]) -> int:
    """Copy all; the exit status is that of the first `cp` that fails."""
    with open(argv[0], encoding="utf-8") as stream:
        copies = json.load(stream)
    for source, destination in copies:
        print(f"INFO:    Copying {source} to {destination or source}", file=sys.stderr, flush=True)
        for path in expand([source])[0]:
            status = copy(path, destination or path, argv[1])
            if status:
                return status
    return 0


def expand(sources: Sequence[str], cwd: str | None = None) -> list[list[str]]:
    """Return the paths that each source stands for, as bash expands it; blanks are part of a name."""
    script = "".join(
        f"for n in {_quote_blanks(each)}; do printf '%s\\0' \"$n\"; done; printf '\\0'\n" for each in sources
    )
    done = subprocess.run(["bash", "-c", script], stdin=subprocess.DEVNULL, capture_output=True, check=True, cwd=cwd)
    return [os.fsdecode(group).split("\0") if group else [] for group in _split_groups(done.stdout)]


def copy(source: str, destination: str, root: str) -> int:
    """Copy one file or folder; links become what they point to."""
    place = join_inside(root, destination)
    if destination.endswith("/"):
        place += "/"
    if not os.path.exists(place):
        os.makedirs(place if place.endswith("/") else os.path.dirname(place), 0o755, exist_ok=True)
    return subprocess.run(["cp", "-fLr", source, place], stdin=subprocess.DEVNULL, check=False).returncode


def join_inside(root: str, path: str) -> str:
    """Return where `path` leads to in `root`, taken for the root of all links."""
    todo = [part for part in path.split("/") if part]
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop(0)
        if part == ".":
            continue
        if part == "..":
            done = done[:-1]
            continue
        here = os.path.join(root, *done, part)
        if not os.path.islink(here):
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(f"too many links: {path}")
        target = os.readlink(here)
        done = [] if target.startswith("/") else done
        todo = [word for word in target.split("/") if word] + todo
    return os.path.join(root, *done)


def _quote_blanks(source: str) -> str:
    return "".join(f"\\{char}" if char in " \t&;()<>|'\"" else char for char in source)


def _split_groups(output: bytes) -> list[bytes]:
    groups: list[bytes] = []
    rest = output
    while rest:
        if rest.startswith(b"\0"):
            groups.append(b"")
            rest = rest[1:]
            continue
        group, _, rest = rest.partition(b"\0\0")
        groups.append(group)
    return groups


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
