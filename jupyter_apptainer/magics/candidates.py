"""What could stand where the cursor is: asked from the installed engine itself (`apptainer __complete`), from our own command
line, from the running instances, and from the folder.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache

from ..bridge.lent.options import FLAGS, VALUES
from ..cli.main import COMMANDS, build_parser
from ..engine.command import Command, Completed
from ..engine.environment import build_engine_environment
from ..engine.options import build_instance_list
from ..engine.runner import Runner
from .context import Context
from .host import Host
from .model import Completion
from .own_words import find_own_command, list_own_words

_INSTANCE = "instance://"
_IMAGES = (".sif", ".simg", ".img", ".def")
# What a file behind these words can be only.
_WANTS_IMAGE = frozenset({"exec", "run", "shell", "test", "inspect", "sign", "verify", "push", "run-help", "instance"})
_GROUPS = frozenset({"instance", "overlay", "sif"})
_TIMEOUT_S = 5.0


def find_candidates(host: Host, words: Sequence[str], *, has_files: bool = True) -> list[Completion]:
    """words: what stands behind `%apptainer`, the last one as far as it is typed. has_files: those of this process's folder count."""
    *before, begun = words
    while before and (before[0] in FLAGS or (before[0] in VALUES and len(before) > 1)):
        del before[: 1 if before[0] in FLAGS else 2]
    context = host.get_context()
    if not before:
        return _keep(begun, [*_list_first_words(context), *_list_options()])
    if find_own_command(before) and before[0] not in context.manual.get_page().commands:
        return _keep(begun, _complete_own(before))
    found = list(_ask_engine(context.engine.path, (*before, begun)))
    if begun.startswith("-"):
        return found
    if before[:1] == ["instance"] and before[1:2] in (["stop"], ["stats"], ["list"], ["logs"]):
        return _keep(begun, _list_instances(context, ""))
    if before == ["instance"]:
        found += _keep(begun, [Completion("logs", "What a service has printed since its start")])
    if begun and _INSTANCE.startswith(begun[: len(_INSTANCE)]):
        found += _keep(begun, _list_instances(context, _INSTANCE))
    has_image = any(not word.startswith("-") for word in before[2 if before[0] in _GROUPS else 1 :])
    if not has_files:
        return found
    return found or list(_list_files(begun, only_images=before[0] in _WANTS_IMAGE and not has_image))


def _keep(begun: str, found: Sequence[Completion]) -> list[Completion]:
    return [each for each in found if each.text.startswith(begun)]


def _list_first_words(context: Context) -> list[Completion]:
    words = list_own_words() | dict(context.manual.get_page().commands)
    return [Completion(name, words[name]) for name in sorted(words)]


def _list_options() -> list[Completion]:
    return [Completion(name, text) for name, text in {**FLAGS, **VALUES}.items()]


@lru_cache(maxsize=512)
def _ask_engine(engine: str, words: tuple[str, ...]) -> tuple[Completion, ...]:
    """The engine answers a word and its description a line, and at the end a number that says what else a shell may offer."""
    env = build_engine_environment(os.environ)
    command = Command((engine, "__complete", *words), env, _parse_answer, "complete a line", timeout_s=_TIMEOUT_S)
    return Runner().run(command)


def _parse_answer(completed: Completed) -> tuple[Completion, ...]:
    lines = [line for line in completed.stdout.splitlines() if line and not line.startswith(":")]
    return tuple(Completion(*line.split("\t", 1)) for line in lines)


def _complete_own(before: Sequence[str]) -> list[Completion]:
    line = find_own_command(before) or ()
    parser = build_parser(line[0]) if line[0] in COMMANDS else None
    for word in line:
        below = parser and _find_subparsers(parser)
        if below and word in below.choices:
            parser = below.choices[word]
    if parser is None:
        return []
    below = _find_subparsers(parser)
    verbs = [Completion(each.dest, each.help or "") for each in below._choices_actions] if below else []
    return [*verbs, *_iter_options(parser)]


def _find_subparsers(parser: argparse.ArgumentParser) -> argparse._SubParsersAction[argparse.ArgumentParser] | None:
    return next((each for each in parser._actions if isinstance(each, argparse._SubParsersAction)), None)


def _iter_options(parser: argparse.ArgumentParser) -> Iterator[Completion]:
    for action in parser._actions:
        for name in action.option_strings:
            if name.startswith("--"):
                yield Completion(name, action.help or "")


def _list_instances(context: Context, prefix: str) -> list[Completion]:
    rows = Runner().run(build_instance_list(context.engine, build_engine_environment(context.environ)))
    return [Completion(prefix + row.name, row.image) for row in rows]


def _list_files(begun: str, *, only_images: bool) -> Iterator[Completion]:
    """Folders, and files that can be meant."""
    folder, _, name = begun.rpartition("/")
    place = os.path.expanduser(folder + "/") if "/" in begun else "."
    try:
        entries = sorted(os.scandir(place), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        is_folder = entry.is_dir()
        is_hidden = entry.name.startswith(".") and not name.startswith(".")
        is_meant = is_folder or not only_images or entry.name.endswith(_IMAGES)
        if entry.name.startswith(name) and is_meant and not is_hidden:
            path = f"{folder}/{entry.name}" if "/" in begun else entry.name
            yield Completion(path + "/" * is_folder, "folder" if is_folder else "file")
