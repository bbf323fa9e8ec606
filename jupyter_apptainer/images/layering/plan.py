"""From a definition to the steps of a layered build, each with the key of the layer that it makes."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..build_secrets import MOUNT_POINT as SECRETS
from ..host_settings import MOUNT_POINT
from ..recipes.definition import Definition, FileCopy, Section, Stage
from .apps import add_installs, describe_apps, find_app_sections
from .copy_files import expand
from .keys import Unlayerable, compute_key, describe_tree
from .parts import Part, is_splittable, join_parts, split_post

_TITLE = re.compile(r"""^\s*(?:echo|printf '%s\\n') ['"]== (.+?)['"](?:;|\s*$)""", re.MULTILINE)
_ALONE = ("setup", "pre")


@dataclass(frozen=True)
class Step:
    """One layer above the first. part: of %post. files: what it copies. apps: their sections. shell: words of the `%post` line.

    stage: the name of the one that the files come from, "" for the host.
    is_remembered: the shell's state is kept for the part behind it. is_announced: the script itself tells what it does.
    """

    kind: Literal["apps", "files", "post"]
    key: str
    title: str
    first_line: int
    last_line: int
    part: Part | None = None
    files: tuple[FileCopy, ...] = ()
    stage: str = ""
    apps: tuple[Section, ...] = ()
    shell: str = ""
    is_remembered: bool = False
    is_announced: bool = False


def check_stages(definition: Definition) -> None:
    """Raise Unlayerable where the order of the engine cannot be kept, or where what goes in is not known."""
    for stage in definition.stages:
        for section in stage.sections:
            if section.name in _ALONE and any(line.text.strip() for line in section.lines):
                raise Unlayerable(f"%{section.name} runs outside of the image, and may read anything")
            if section.name == "test" and stage is not definition.stages[-1]:
                raise Unlayerable("a stage before the last has a %test")
        for copy in stage.iter_files():
            if copy.stage and _may_be_metadata(copy.source):
                raise Unlayerable(f"{copy.source} of another stage has what the engine notes down about it")


def plan_steps(
    stage: Stage, base_key: str, folder: Path, surroundings: Sequence[str], before: Mapping[str, str]
) -> tuple[Step, ...]:
    """Return the steps of a stage. folder: where paths of %files start from. surroundings: what else scripts see.

    before: the keys of what earlier stages end with, by their names. Raises Unlayerable where what goes in is not known.
    """
    posts = [section for section in stage.sections if section.name == "post"]
    if len(posts) > 1:
        raise Unlayerable("it has several %post sections")
    section = posts[0] if posts else None
    own = join_parts(split_post(section), _is_program) if section else ()
    parts, is_carried = add_installs(stage, own, _is_program)
    is_remembered = is_carried or bool(section and is_splittable(section))
    section = section or Section("post", "", 0)
    if is_carried and section.argument.split("#")[0].strip():
        raise Unlayerable("%post names a shell, and apps are installed in it")
    copies = stage.iter_files()
    planner = _Planner(base_key, folder, surroundings, before)
    planner.add_apps(find_app_sections(stage))
    late = {copy: index for copy in copies if (index := _find_part(copy, parts)) is not None}
    planner.add_files([copy for copy in copies if copy not in late])
    for index, part in enumerate(parts):
        planner.add_files([copy for copy in copies if late.get(copy) == index])
        if part.text.strip():
            planner.add_post(part, section, is_remembered=is_remembered)
    return tuple(planner.steps)


class _Planner:
    def __init__(self, base_key: str, folder: Path, surroundings: Sequence[str], before: Mapping[str, str]) -> None:
        self.steps: list[Step] = []
        self._key = base_key
        self._folder = folder
        self._surroundings = list(surroundings)
        self._before = before

    def add_apps(self, sections: Sequence[Section]) -> None:
        """Add the step that makes folders and files of apps, if there are any."""
        if not sections:
            return
        self._key = compute_key("apps", self._key, describe_apps(sections, self._folder))
        names = ", ".join(dict.fromkeys(section.app for section in sections))
        lines = [section.line for section in sections]
        self.steps.append(Step("apps", self._key, f"apps {names}", lines[0], lines[-1], apps=tuple(sections)))

    def add_files(self, copies: Sequence[FileCopy]) -> None:
        """Add steps that copy, if there is anything to copy: what comes from other stages first, as with the engine."""
        for name in dict.fromkeys(copy.stage for copy in copies if copy.stage):
            self._add_files_from(name, [copy for copy in copies if copy.stage == name])
        self._add_files([copy for copy in copies if not copy.stage])

    def _add_files_from(self, name: str, copies: Sequence[FileCopy]) -> None:
        if name not in self._before:
            raise Unlayerable(f"no stage before it is called {name}")
        found = [[copy.source, copy.destination] for copy in copies]
        self._key = compute_key("files from", self._key, self._before[name], found)
        self._add_copy(f"%files from {name} ", copies, name)

    def _add_files(self, copies: Sequence[FileCopy]) -> None:
        if not copies:
            return
        found = [
            [copy.source, copy.destination, [[name, describe_tree(self._folder / name)] for name in names]]
            for copy, names in zip(copies, _expand(copies, self._folder), strict=True)
        ]
        self._key = compute_key("files", self._key, found)
        self._add_copy("%files ", copies, "")

    def _add_copy(self, title: str, copies: Sequence[FileCopy], stage: str) -> None:
        names = ", ".join(copy.source for copy in copies[:3]) + (", …" if len(copies) > 3 else "")
        lines = [copy.line for copy in copies]
        step = Step("files", self._key, title + names, min(lines), max(lines), files=tuple(copies), stage=stage)
        self.steps.append(step)

    def add_post(self, part: Part, section: Section, *, is_remembered: bool) -> None:
        """Add a step that runs a part of %post."""
        shell = _build_shell(section.argument)
        self._key = compute_key("post", self._key, shell, part.text, is_remembered, self._surroundings)
        step = Step(
            "post",
            self._key,
            _find_title(part),
            part.first_line,
            part.last_line,
            part,
            shell=shell,
            is_remembered=is_remembered,
            is_announced=bool(_TITLE.search(part.text)),
        )
        self.steps.append(step)


def _may_be_metadata(source: str) -> bool:
    """Say whether a path of a stage may lead to /.singularity.d, which layers of stages lack."""
    first = next((word for word in source.split("/") if word not in ("", ".")), "..")
    return first == ".." or first.startswith(".singularity") or any(char in first for char in "*?[{$`\\")


def _find_part(copy: FileCopy, parts: Sequence[Part]) -> int | None:
    """Return the index of the part that a file waits for."""
    destination = (copy.destination or copy.source).rstrip("/")
    for index, part in enumerate(parts):
        if any(
            destination == path.rstrip("/") or destination.startswith(path.rstrip("/") + "/") for path in part.paths
        ):
            return index
    return None


def _expand(copies: Sequence[FileCopy], folder: Path) -> list[list[str]]:
    try:
        return expand([copy.source for copy in copies], cwd=str(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unlayerable("the sources of %files cannot be listed") from error


def _is_program(text: str) -> bool:
    """Ask a shell whether a text is a whole program; it runs nothing."""
    done = subprocess.run(["sh", "-n"], input=text.encode(), capture_output=True, check=False, timeout=30)
    return done.returncode == 0


def _build_shell(argument: str) -> str:
    """Return the words in front of the script's name, as the engine has them."""
    words = argument.split("#")[0].split()
    if "-c" in words:
        raise Unlayerable("%post names a shell")
    return " ".join(["/bin/sh", "-ex", *words])


def _find_title(part: Part) -> str:
    """Return what a part says about itself, as `echo '== Title'`, or its first command."""
    if part.title:
        return part.title
    said = _TITLE.search(part.text)
    commands = (line.strip() for line in part.text.splitlines() if line.strip() and not line.strip().startswith("#"))
    return said[1] if said else next(commands, "%post")


def describe_surroundings(env: Mapping[str, str], binds: Sequence[str]) -> list[str]:
    """Return what scripts see besides the image: variables, the host's settings, and the names of secrets.

    An index is what it is at the time, and a secret, as with Docker, may have another value.
    """
    variables = sorted(f"{name}={value}" for name, value in env.items() if name.startswith("APPTAINERENV_"))
    folders = [Path(bind.partition(":")[0]) for bind in binds if bind.endswith(f":{MOUNT_POINT}")]
    given = [Path(bind.partition(":")[0]) for bind in binds if bind.endswith(f":{SECRETS}:ro")]
    names = sorted(f"secret {path.name}" for folder in given for path in folder.iterdir())
    return [*variables, *names, *(json.dumps(describe_tree(folder)) for folder in folders)]
