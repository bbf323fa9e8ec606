"""Definition files as the engine reads them: stages, their headers and sections, each with its line.

The rules are those of the engine's own parser, surprises included: a stage begins at each line with `Bootstrap:`, even inside a
script; a section begins at each line whose first word starts with a per cent sign; `{{ NAME }}` is replaced in the whole text,
but not behind a `#` on its line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

SECTIONS = (
    "help",
    "setup",
    "files",
    "labels",
    "environment",
    "pre",
    "post",
    "runscript",
    "test",
    "startscript",
    "arguments",
)
APP_SECTIONS = ("appinstall", "applabels", "appfiles", "appenv", "apptest", "apphelp", "apprun", "appstart")

_STAGE = re.compile(r"^bootstrap:", re.IGNORECASE)
_ARGUMENT = re.compile(r"{{\s*(\w+)\s*}}")
_COMMENT = re.compile(r"#[^!]")
# What the engine splits a line of %files with: words, words in quotes, and words with arguments in them.
_FILE_WORD = re.compile(r"""(?:[^\s"']*{{\s*\w+\s*}}*[^\s{}"']*)+|[^\s"']+|"[^"]*"|'[^']*'""")


@dataclass(frozen=True)
class Header:
    """A line `Key: value` above the sections; key in lower case."""

    key: str
    value: str
    line: int


@dataclass(frozen=True)
class Line:
    """A line of a section, as written."""

    number: int
    text: str


@dataclass(frozen=True)
class Section:
    """`%name argument` and what follows. name: as the engine sees it, "" for a line that only looks like a section."""

    name: str
    argument: str
    line: int
    lines: tuple[Line, ...] = ()

    @property
    def app(self) -> str:
        """The name of the SCIF app, where there is one."""
        return self.argument.split()[0] if self.name in APP_SECTIONS and self.argument.split() else ""

    @property
    def body(self) -> str:
        """The section's text."""
        return "".join(f"{line.text}\n" for line in self.lines)


@dataclass(frozen=True)
class FileCopy:
    """A line of %files. destination: "" for the same path. stage: the stage that it comes from, "" for the host."""

    source: str
    destination: str
    stage: str
    line: int


@dataclass(frozen=True)
class Stage:
    """One stage. stray: lines above the sections that are no header."""

    headers: tuple[Header, ...]
    sections: tuple[Section, ...]
    line: int
    stray: tuple[Line, ...] = ()

    def get_header(self, key: str) -> Header | None:
        """Return the header that counts: the last one of its name."""
        return next((header for header in reversed(self.headers) if header.key == key), None)

    @property
    def agent(self) -> str:
        """The bootstrap agent; "" where there is none."""
        found = self.get_header("bootstrap")
        return found.value.lower() if found else ""

    @property
    def name(self) -> str:
        """What %files of other stages call it."""
        found = self.get_header("stage")
        return found.value if found else ""

    def iter_files(self) -> tuple[FileCopy, ...]:
        """Return what %files copies, in order."""
        return tuple(
            copy for section in self.sections if section.name == "files" for copy in parse_file_copies(section)
        )

    def get_arguments(self) -> dict[str, Line]:
        """Return the lines of %arguments by name; the value is behind the equals sign."""
        lines = (line for section in self.sections if section.name == "arguments" for line in section.lines)
        return {line.text.partition("=")[0].strip(): line for line in lines if _is_assignment(line.text)}


@dataclass(frozen=True)
class ArgumentUse:
    """`{{ name }}`. is_replaced: not so behind a `#` on the same line, be that a comment or not."""

    name: str
    line: int
    is_replaced: bool


@dataclass(frozen=True)
class Definition:
    """A whole definition file."""

    stages: tuple[Stage, ...]
    uses: tuple[ArgumentUse, ...] = field(default=())

    def get_stage_of_line(self, number: int) -> Stage | None:
        """Return the stage in which a line is."""
        return next((stage for stage in reversed(self.stages) if stage.line <= number), None)


def parse_definition(text: str) -> Definition:
    """Parse the text of a definition file; it never fails, and what the engine would refuse is for `check`."""
    lines = [Line(number, line.rstrip("\r")) for number, line in enumerate(text.split("\n"), 1)]
    starts = [index for index, line in enumerate(lines) if _STAGE.match(line.text)]
    bounds = [0, *starts, len(lines)] if not starts or starts[0] else [*starts, len(lines)]
    parts = [lines[start:end] for start, end in pairwise(bounds)]
    stages = tuple(_parse_stage(part) for part in parts if any(_is_meaningful(line.text) for line in part))
    return Definition(stages, tuple(_find_uses(lines)))


def apply_arguments(text: str, values: Mapping[str, str]) -> str:
    """Replace `{{ NAME }}` where there is a value, as the engine does."""
    return "\n".join(
        _ARGUMENT.sub(lambda match, line=line: _substitute(match, line, values), line)  # type: ignore[misc]
        for line in text.split("\n")
    )


def find_values(definition: Definition, build_args: Mapping[str, str], stage: Stage) -> dict[str, str]:
    """Return the values of the arguments in one stage: those given, then the defaults of that stage."""
    defaults = {name: line.text.partition("=")[2].strip() for name, line in stage.get_arguments().items()}
    return defaults | dict(build_args)


def resolve(definition: Definition, build_args: Mapping[str, str]) -> Definition:
    """Return the same definition with its arguments replaced; lines keep their numbers."""
    return replace(
        definition,
        stages=tuple(_resolve_stage(stage, find_values(definition, build_args, stage)) for stage in definition.stages),
    )


def parse_file_copies(section: Section) -> tuple[FileCopy, ...]:
    """Parse the lines of %files."""
    words = section.argument.split("#")[0].split()
    if len(words) not in (0, 2):
        # The engine leaves such a section out.
        return ()
    stage = words[1] if words else ""
    copies: list[FileCopy] = []
    for line in section.lines:
        text = line.text.strip()
        found = _FILE_WORD.findall(text) if text and not text.startswith("#") else []
        if found:
            source, destination = (*[word.strip('"') for word in found[:2]], "")[:2]
            copies.append(FileCopy(source, destination, stage, line.number))
    return tuple(copies)


def _resolve_stage(stage: Stage, values: Mapping[str, str]) -> Stage:
    return replace(
        stage,
        headers=tuple(replace(each, value=apply_arguments(each.value, values)) for each in stage.headers),
        sections=tuple(
            replace(
                each,
                argument=apply_arguments(each.argument, values),
                lines=tuple(replace(line, text=apply_arguments(line.text, values)) for line in each.lines),
            )
            for each in stage.sections
        ),
    )


def _substitute(match: re.Match[str], line: str, values: Mapping[str, str]) -> str:
    if _COMMENT.search(line[: match.start()]) or match[1] not in values:
        return match[0]
    # Values may name other arguments; the engine follows them once.
    return _ARGUMENT.sub(lambda inner: values.get(inner[1], inner[0]), values[match[1]])


def _find_uses(lines: list[Line]) -> list[ArgumentUse]:
    return [
        ArgumentUse(match[1], line.number, not _COMMENT.search(line.text[: match.start()]))
        for line in lines
        for match in _ARGUMENT.finditer(line.text)
    ]


def _parse_stage(lines: list[Line]) -> Stage:
    marks = [index for index, line in enumerate(lines) if line.text.lstrip().startswith("%")]
    top = lines[: marks[0]] if marks else lines
    headers, stray = _parse_headers(top)
    bounds = pairwise([*marks, len(lines)])
    sections = tuple(_parse_section(lines[start:end]) for start, end in bounds)
    return Stage(headers, sections, lines[0].number, stray)


def _parse_headers(lines: list[Line]) -> tuple[tuple[Header, ...], tuple[Line, ...]]:
    headers: list[Header] = []
    stray: list[Line] = []
    pending: Header | None = None
    for line in lines:
        text = line.text.strip()
        if not text or text.startswith("#"):
            pending = None
            continue
        text = text.split("#")[0]
        key, colon, value = text.partition(":")
        if pending:
            header = replace(pending, value=pending.value + text.strip())
        elif not colon:
            stray.append(line)
            continue
        else:
            header = Header(key.strip().lower(), value.strip(), line.number)
        if header.value.endswith("\\"):
            pending = replace(header, value=header.value[:-1])
        else:
            headers.append(header)
            pending = None
    return tuple(headers), tuple(stray)


def _parse_section(lines: list[Line]) -> Section:
    first = lines[0].text
    name, _, argument = first.lstrip("%").partition(" ")
    # The engine cuts the name at a space only, and sees none in front of it.
    known = name.lower().rstrip() if not first.startswith((" ", "\t")) else ""
    return Section(known, argument.strip(), lines[0].number, tuple(lines[1:]))


def _is_meaningful(text: str) -> bool:
    return bool(text.strip()) and not text.strip().startswith("#")


def _is_assignment(text: str) -> bool:
    name, equals, _ = text.strip().partition("=")
    return bool(equals and name.strip()) and not text.strip().startswith("#")
