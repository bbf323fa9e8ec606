"""The engine's own completion of a command line, with its descriptions, for the version that is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .command import Command, Completed
from .environment import build_engine_environment
from .locate import EngineInfo
from .runner import Runner


def build_complete(
    engine: EngineInfo, words: Sequence[str], env: Mapping[str, str]
) -> Command[tuple[tuple[str, str], ...]]:
    """`__complete instance st`: candidates for the last word, which may be empty. Runs nothing of what is completed."""
    return Command(
        (engine.path, "__complete", *(words or ("",))), env, parse_complete, "complete a command line", timeout_s=10
    )


def parse_complete(completed: Completed) -> tuple[tuple[str, str], ...]:
    """Parse lines of a word, a tab and its description; the last line is a directive for shells."""
    pairs = (line.partition("\t")[::2] for line in completed.stdout.splitlines() if not line.startswith(":"))
    return tuple((word, text.strip()) for word, text in pairs if word)


def complete_words(engine: EngineInfo, words: Sequence[str], environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return candidates for the last of `words`, each with its description."""
    return Runner().run(build_complete(engine, words, build_engine_environment(environ)))
