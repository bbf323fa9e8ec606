"""Instructions of a Dockerfile as values, each with its lines; the parser is BuildKit's own, through the package `dockerfile`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ....errors import SpecError
from ..findings import Finding, find_nearest

KNOWN = (
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
)
_ESCAPE = re.compile(r"^#\s*escape\s*=\s*(\S)\s*$", re.IGNORECASE)
_HEREDOC = re.compile(r"<<(?P<strip>-?)(?P<quote>['\"]?)(?P<name>[^'\"\s]+)(?P=quote)")


@dataclass(frozen=True)
class Heredoc:
    """A here-document. is_expanded: its variables are replaced, for its name has no quotes."""

    name: str
    content: str
    is_expanded: bool


@dataclass(frozen=True)
class Instruction:
    """One instruction. flags: `--name=value` by name. words: as written, with quotes. is_json: given as a JSON list."""

    keyword: str
    line: int
    words: tuple[str, ...]
    flags: tuple[tuple[str, str], ...] = ()
    is_json: bool = False
    heredocs: tuple[Heredoc, ...] = ()
    text: str = ""

    def get_flag(self, name: str) -> str:
        """Return the value of a flag, "" where it is not given."""
        return next((value for key, value in self.flags if key == name), "")

    @property
    def short(self) -> str:
        """The instruction in one line of moderate length, for comments and progress."""
        first = " ".join(self.text.split("\n")[0].split())
        return first if len(first) <= 76 else first[:75] + "…"


@dataclass(frozen=True)
class Dockerfile:
    """All instructions; escape: the character that continues lines."""

    instructions: tuple[Instruction, ...]
    escape: str
    findings: tuple[Finding, ...]


def parse_dockerfile(text: str) -> Dockerfile:
    """Parse the text of a Dockerfile; what BuildKit refuses becomes an error among the findings."""
    # A compiled parser, which there is not for every machine, and only this needs it.
    try:
        import dockerfile
    except ImportError as error:
        raise SpecError(
            "Dockerfiles cannot be read here: the package `dockerfile` is not installed",
            hint="`pip install dockerfile`; where there is no wheel of it for this machine, that needs Go",
        ) from error
    try:
        commands = dockerfile.parse_string(text)
    except dockerfile.GoParseError as error:
        return Dockerfile((), "\\", (_describe_failure(str(error), text),))
    instructions = tuple(_convert(command) for command in commands)
    return Dockerfile(instructions, _find_escape(text), tuple(_find_unknown(instructions)))


def _convert(command: Any) -> Instruction:
    quoted = {match["name"]: bool(match["quote"]) for match in _HEREDOC.finditer(command.original.split("\n")[0])}
    return Instruction(
        keyword=command.cmd.upper(),
        line=command.start_line,
        words=(command.sub_cmd, *command.value) if command.sub_cmd else command.value,
        flags=tuple(_split_flag(flag) for flag in command.flags),
        is_json=command.json,
        heredocs=tuple(
            Heredoc(each.name, each.content, is_expanded=not quoted.get(each.name, False)) for each in command.heredocs
        ),
        text=command.original,
    )


def _split_flag(flag: str) -> tuple[str, str]:
    name, equals, value = flag.removeprefix("--").partition("=")
    return name, value if equals else "true"


def _find_unknown(instructions: tuple[Instruction, ...]) -> list[Finding]:
    found: list[Finding] = []
    for each in instructions:
        if each.keyword not in KNOWN:
            near = find_nearest(each.keyword, KNOWN)
            hint = (
                f"did you mean {near}?" if near else "if it belongs to the line above, that must end with a backslash"
            )
            found.append(
                Finding(each.line, "error", "instruction-unknown", f"unknown instruction {each.keyword}", hint)
            )
    first = next((each for each in instructions if each.keyword != "ARG" and each.keyword in KNOWN), None)
    if first is None or first.keyword != "FROM":
        line = first.line if first else 1
        found.append(Finding(line, "error", "no-from", "the first instruction must be FROM", "add `FROM debian:12`"))
    return found


def _describe_failure(message: str, text: str) -> Finding:
    lines = text.splitlines()
    if "no instructions" in message:
        return Finding(1, "error", "empty", "the Dockerfile has no instructions", "begin it with FROM")
    if "unterminated heredoc" in message:
        number = next((index for index, line in enumerate(lines, 1) if _HEREDOC.search(line)), 0)
        return Finding(number, "error", "syntax", message, "its end must stand alone on a line")
    keyword = message.split(" ")[0]
    number = _find_line(lines, keyword, message)
    return Finding(number, "error", "syntax", message)


def _find_line(lines: list[str], keyword: str, message: str) -> int:
    """The parser names no line: take the last one that begins with the instruction that it names."""
    match = re.search(r"line (\d+)", message)
    if match:
        return int(match[1])
    starts = [index for index, line in enumerate(lines, 1) if line.lstrip().upper().startswith(keyword.upper())]
    wrong = [index for index in starts if len(lines[index - 1].split()) == 2 and "=" not in lines[index - 1]]
    return (wrong or starts or [0])[0]


def _find_escape(text: str) -> str:
    for line in text.splitlines():
        match = _ESCAPE.match(line)
        if match:
            return match[1]
        if not line.startswith("#"):
            break
    return "\\"
