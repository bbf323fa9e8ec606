"""A file that is there on the host, and that a program in a container did not find: what to bind."""

from __future__ import annotations

import os
import re

from .line import EngineLine

# Python, coreutils, R and most others name the file before or after these words, mostly in quotes.
_MISSING = (
    re.compile(r"can't open file '(?P<path>[^'\n]+)': \[Errno 2\]"),
    re.compile(r"No such file or directory: ['\"](?P<path>[^'\"\n]+)['\"]"),
    re.compile(r"['\"‘]?(?P<path>[^\s'\"‘’:]*/[^\n'\"‘’:]*|[\w.-]+\.\w+)['\"’]?: No such file or directory"),
    re.compile(r"cannot open file ['\"](?P<path>[^'\"\n]+)['\"]"),
)


def advise_bind(stderr: str, line: EngineLine, cwd: str) -> str | None:
    """Return a hint where the program says that a file is missing which exists on the host."""
    path = next((found for found in _find_missing(stderr, cwd) if os.path.exists(found)), None)
    if path is None:
        return None
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    if line.arguments[0].startswith("instance://"):
        return f"{path} exists on the host, but the instance does not see it: start the instance with `--bind {folder}`"
    return f"{path} exists on the host, but the container does not see it: add `--bind {folder}`"


def _find_missing(stderr: str, cwd: str) -> list[str]:
    return [
        os.path.normpath(os.path.join(cwd, match["path"])) for pattern in _MISSING for match in pattern.finditer(stderr)
    ]
