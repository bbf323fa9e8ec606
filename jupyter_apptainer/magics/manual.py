"""What the installed engine says about its own commands: their flags, their arguments, what is below them.

Asked with `help`, once for each engine and command, and kept on disk by the identity of the engine's file: no line waits for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engine.command import Command, Completed
from ..engine.environment import build_engine_environment
from ..engine.flags import FlagTable, parse_help
from ..engine.locate import EngineInfo
from ..engine.runner import Runner
from ..places import Places, make_private_dir, write_private_file

_COMMANDS = re.compile(r"^Available Commands:\n((?: .*\n)+)", re.MULTILINE)
_COMMAND = re.compile(r"^  (\S+) +(.*)$", re.MULTILINE)
_USAGE = re.compile(r"^Usage:\n +\S+ (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """The help of one command.

    usage: its line, without the engine's name. flags: those of the command alone. commands: those below it, with what they do.
    """

    usage: str
    flags: FlagTable
    commands: Mapping[str, str]


class Manual:
    """The pages of one engine."""

    def __init__(self, engine: EngineInfo, places: Places) -> None:
        self._engine = engine
        self._file = places.probes / f"manual-{_identify(engine)}.json"
        self._texts: dict[str, str] | None = None
        self._pages: dict[tuple[str, ...], Page] = {}

    def get_page(self, *words: str) -> Page:
        """Return the page of a command that exists; without words, that of the engine."""
        if words not in self._pages:
            self._pages[words] = _parse(self._get_text(words))
        return self._pages[words]

    def find_command(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """Return as many of the first words as name a command: ("instance", "start"), ("exec",), ()."""
        found: tuple[str, ...] = ()
        for word in words:
            if word not in self.get_page(*found).commands:
                break
            found = (*found, word)
        return found

    def _get_text(self, words: tuple[str, ...]) -> str:
        if self._texts is None:
            self._texts = _load(self._file)
        key = " ".join(words)
        if key not in self._texts:
            self._texts[key] = self._ask(words)
            _save(self._file, self._texts)
        return self._texts[key]

    def _ask(self, words: tuple[str, ...]) -> str:
        return Runner().run(
            Command(
                (self._engine.path, "help", *words),
                build_engine_environment(os.environ),
                _get_output,
                f"ask for the help of {' '.join(words) or 'the engine'}",
                timeout_s=30,
            )
        )


def _get_output(completed: Completed) -> str:
    return completed.stdout


def _parse(text: str) -> Page:
    usage = _USAGE.search(text)
    below = _COMMANDS.search(text)
    return Page(
        usage=usage[1].strip() if usage else "",
        flags=parse_help(Completed((), 0, text, "")),
        commands=dict(_COMMAND.findall(below[1])) if below else {},
    )


def _identify(engine: EngineInfo) -> str:
    path = os.path.realpath(engine.path)
    status = os.stat(path)
    facts = f"{path}:{status.st_size}:{status.st_mtime_ns}:{status.st_ino}:{engine.version_text}"
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def _load(path: Path) -> dict[str, str]:
    try:
        content: Any = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {str(key): str(text) for key, text in content.items()} if isinstance(content, dict) else {}


def _save(path: Path, texts: Mapping[str, str]) -> None:
    try:
        make_private_dir(path.parent)
        write_private_file(path, json.dumps(texts))
    except OSError:
        # What cannot be kept is asked again.
        return
