"""SCIF apps in a layered build: a first layer with their folders and files, and a part behind %post for each %appinstall.

The engine does the former itself, and puts the latter behind %post, into one script. Whatever of %post would reach them there and not here keeps
them in one part with it. https://apptainer.org/docs/user/latest/definition_files.html#scif-apps
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..recipes.definition import APP_SECTIONS, Section, Stage
from .keys import Unlayerable, describe_tree
from .parts import MAX_PARTS, Part

_INSTALL = "\ncd /\n. /scif/apps/{name}/scif/env/01-base.sh\n\ncd /scif/apps/{name}\n{text}\n\ncd /\n"
# What a shell remembers and `parts` does not carry over, and what ends one early.
_STICKY = re.compile(
    r"(?:^|[\s;&|({])(?:trap|alias|eval|source|exec|ulimit|shopt|function|coproc|set\s+(?:--|[^-+\s])|\.\s)"
    r"|\w\s*\(\s*\)|(?<![&>|<])&(?![&>])",
    re.MULTILINE,
)


def find_app_sections(stage: Stage) -> tuple[Section, ...]:
    """Return what the engine makes folders and files of."""
    return tuple(each for each in stage.sections if each.name in APP_SECTIONS and each.name != "appinstall")


def describe_apps(sections: Sequence[Section], folder: Path) -> list[Any]:
    """Return all that the layer of apps depends on. Raises Unlayerable where that is not known."""
    return [[each.name, each.argument, each.body, _describe_files(each, folder)] for each in sections]


def add_installs(
    stage: Stage, parts: Sequence[Part], is_complete: Callable[[str], bool]
) -> tuple[tuple[Part, ...], bool]:
    """Return the parts of %post and, behind them, those of apps; and whether each of them needs what the one before remembers."""
    installs = _list_installs(stage)
    if not installs:
        return tuple(parts), False
    texts = [part.text for part in (*parts, *installs)]
    is_short = len(texts) <= MAX_PARTS
    is_separate = is_short and not any(map(_is_sticky, stage.sections)) and all(map(is_complete, texts))
    if is_separate:
        return (*parts, *installs), True
    last = parts[-1] if parts else Part("", installs[0].first_line, installs[0].first_line)
    text = last.text + "".join(part.text for part in installs)
    return (*parts[:-1], replace(last, text=text, last_line=max(last.last_line, installs[-1].last_line))), False


def _is_sticky(section: Section) -> bool:
    return section.name in ("post", "appinstall") and bool(_STICKY.search(section.body))


def _list_installs(stage: Stage) -> list[Part]:
    """Return a part for each app that has something to install, in the order in which the apps are first named."""
    names = dict.fromkeys(each.app for each in stage.sections if each.app)
    installs: list[Part] = []
    for name in names:
        found = [each for each in stage.sections if each.name == "appinstall" and each.app == name]
        text = "".join(each.body for each in found)
        if text.strip():
            lines = [line.number for each in found for line in each.lines if line.text.strip()]
            script = _INSTALL.format(name=name, text=text)
            installs.append(Part(script, lines[0], lines[-1], title=f"%appinstall {name}"))
    return installs


def _describe_files(section: Section, folder: Path) -> list[Any]:
    if section.name != "appfiles":
        return []
    lines = (line.text.strip() for line in section.lines)
    words = [line.split("#")[0].strip().split(" ", 1) for line in lines if line and not line.startswith("#")]
    if any(".." in word for _, *rest in words for word in rest):
        raise Unlayerable(f"%appfiles {section.argument} leads out of the app's folder")
    return [describe_tree(folder / source) for source, *_ in words]
