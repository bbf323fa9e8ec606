"""The folder that COPY and ADD take from: .dockerignore, wildcards, and what of it %files can copy as it is.

%files follows links, Docker keeps them: links are listed apart, to be made anew in the image.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class IgnoreRule:
    """One line of a .dockerignore."""

    pattern: re.Pattern[str]
    is_exception: bool


@dataclass
class Selection:
    """What a source stands for. files: (path below the context, path below the destination). links: (path there, target)."""

    is_folder: bool
    files: list[tuple[str, str]] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)


class Context:
    """A build's folder. `path` need not exist where nothing is copied from it."""

    def __init__(self, path: Path, rules: tuple[IgnoreRule, ...] = ()) -> None:
        self.path = path
        self._rules = rules
        self._has_exceptions = any(rule.is_exception for rule in rules)

    @classmethod
    def load(cls, path: Path, dockerfile: Path | None = None) -> Context:
        """Read the .dockerignore of a folder; `NAME.dockerignore` beside a Dockerfile NAME comes first."""
        own = dockerfile.with_name(f"{dockerfile.name}.dockerignore") if dockerfile else None
        chosen = own if own and own.is_file() else path / ".dockerignore"
        text = chosen.read_text(encoding="utf-8") if chosen.is_file() else ""
        return cls(path, parse_ignore(text))

    def find(self, source: str) -> list[str]:
        """Return the paths below the context that `source` stands for, without those that are ignored."""
        pattern = os.path.normpath(source.lstrip("/") or ".")
        if pattern == "." or not _WILD.search(pattern):
            return [pattern] if os.path.lexists(self.path / pattern) and not self.is_ignored(pattern) else []
        regex = re.compile(_translate(pattern))
        found = sorted(self._walk_names("", pattern.count("/")))
        return [name for name in found if regex.fullmatch(name) and not self.is_ignored(name)]

    def is_outside(self, source: str) -> bool:
        """Say whether a path leaves the context."""
        return os.path.normpath(source.lstrip("/") or ".").startswith("..")

    def select(self, path: str) -> Selection:
        """Return what to copy for one path: as few lines as the ignored files and the links allow."""
        full = self.path / path
        if not full.is_dir() or (full.is_symlink() and not full.is_dir()):
            return Selection(is_folder=False, files=[(path, os.path.basename(path))])
        selection = Selection(is_folder=True)
        if self._is_plain(path):
            selection.files.append((f"{path}/.", ""))
        else:
            self._collect(path, "", selection)
        return selection

    def is_ignored(self, path: str) -> bool:
        """Say whether a path is ignored; the last rule that matches it or a folder above it counts."""
        if path == ".":
            return False
        parents = [path, *_parents(path)]
        is_ignored = False
        for rule in self._rules:
            if rule.is_exception == is_ignored and any(rule.pattern.fullmatch(each) for each in parents):
                is_ignored = not rule.is_exception
        return is_ignored

    def _walk_names(self, folder: str, depth: int) -> list[str]:
        found: list[str] = []
        for entry in self._list(folder):
            name = f"{folder}/{entry.name}" if folder else entry.name
            found.append(name)
            if depth and entry.is_dir():
                found += self._walk_names(name, depth - 1)
        return found

    def _list(self, folder: str) -> list[os.DirEntry[str]]:
        with os.scandir(self.path / folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)

    def _is_plain(self, folder: str) -> bool:
        """Say whether all of a folder can be copied at once."""
        below = "" if folder == "." else folder
        for entry in self._list(below):
            name = f"{below}/{entry.name}" if below else entry.name
            if entry.is_symlink() or self.is_ignored(name):
                return False
            if entry.is_dir() and not self._is_plain(name):
                return False
        return True

    def _collect(self, folder: str, target: str, selection: Selection) -> None:
        below = "" if folder == "." else folder
        for entry in self._list(below):
            name = f"{below}/{entry.name}" if below else entry.name
            place = f"{target}/{entry.name}" if target else entry.name
            is_ignored = self.is_ignored(name)
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_ignored and not (is_folder and self._has_exceptions):
                continue
            if entry.is_symlink():
                selection.links.append((place, os.readlink(self.path / name)))
            elif not is_folder:
                selection.files.append((name, place))
            elif not is_ignored and self._is_plain(name):
                selection.files.append((f"{name}/.", place + "/"))
            else:
                selection.folders += [] if is_ignored else [place]
                self._collect(name, place, selection)


def parse_ignore(text: str) -> tuple[IgnoreRule, ...]:
    """Parse the text of a .dockerignore."""
    rules: list[IgnoreRule] = []
    for raw in text.splitlines():
        line = raw.strip()
        if not line or raw.startswith("#"):
            continue
        is_exception = line.startswith("!")
        pattern = os.path.normpath(line.removeprefix("!").strip().lstrip("/") or ".")
        if pattern != ".":
            rules.append(IgnoreRule(re.compile(_translate(pattern)), is_exception))
    return tuple(rules)


def _parents(path: str) -> list[str]:
    words = path.split("/")
    return ["/".join(words[:count]) for count in range(len(words) - 1, 0, -1)]


def _translate(pattern: str) -> str:
    """Translate a pattern of Go's filepath.Match, and `**` for any number of folders, to a regular expression."""
    result, index = "", 0
    while index < len(pattern):
        char = pattern[index]
        if pattern.startswith("**/", index):
            result, index = result + "(?:.*/)?", index + 3
            continue
        if pattern.startswith("**", index):
            result, index = result + ".*", index + 2
            continue
        if char == "[" and "]" in pattern[index + 2 :]:
            end = pattern.index("]", index + 2)
            result, index = result + pattern[index : end + 1], end + 1
            continue
        if char == "\\" and index + 1 < len(pattern):
            result, index = result + re.escape(pattern[index + 1]), index + 2
            continue
        result += {"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char))
        index += 1
    return result
