"""Copy what %files names into an image's folder, by the engine's rules: a program for a build's namespace.

    copy_files.py LIST ROOT [FROM]

LIST: a JSON file, a list of [source, destination]. A destination is looked up inside ROOT, whatever links there are in it; so is
a source inside FROM, the folder of another stage's image, where there is one.
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
        above = argv[2] if len(argv) > 2 else ""
        for path in expand([f"{above}/{source.lstrip('/')}" if above else source])[0]:
            name = path.removeprefix(above)
            status = (
                copy_from_stage(name, destination or name, *argv[1:])
                if above
                else copy(path, destination or path, argv[1])
            )
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
    place = _make_parents(root, destination)
    return subprocess.run(["cp", "-fLr", source, place], stdin=subprocess.DEVNULL, check=False).returncode


def copy_from_stage(source: str, destination: str, root: str, stage: str) -> int:
    """Copy one file or folder of another image as it is, with its owner; a link becomes what it points to, those in folders stay.

    A folder gets its permissions where it is made, and has none of its own.
    """
    path, place = join_inside(stage, source), _make_parents(root, destination)
    if os.path.isdir(place):
        place = os.path.join(place, os.path.basename(source))
    flags = ["-a", "--remove-destination", "--no-target-directory"]
    if not os.path.isdir(path):
        return subprocess.run(["cp", *flags, path, place], stdin=subprocess.DEVNULL, check=False).returncode
    os.makedirs(place, 0o755, exist_ok=True)
    before = os.stat(place)
    status = subprocess.run(["cp", *flags, path, place], stdin=subprocess.DEVNULL, check=False).returncode
    os.chown(place, before.st_uid, before.st_gid)
    os.chmod(place, before.st_mode & 0o7777)
    return status


def _make_parents(root: str, destination: str) -> str:
    """Return the place of a destination, which has a slash at its end if that has one, when all above it is there."""
    place = join_inside(root, destination)
    if destination.endswith("/"):
        place += "/"
    if not os.path.exists(place):
        os.makedirs(place if place.endswith("/") else os.path.dirname(place), 0o755, exist_ok=True)
    return place


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
