"""Cut %post at its `# layer` marks, so that each part can run alone: what a shell would remember is carried over a mark.

Carried are the folder, exported variables, variables whose names are assigned in the text, umask and the options that `$-` has.
Not carried are functions, aliases, traps, background processes and positional parameters: a part that leaves one of the first
three, or a process that it has not waited for, is an error, and not a layer. Pure: text from text.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..recipes.definition import Line, Section

STATE_FILE = "/.post.state"
_MARK = re.compile(r"^\s*# layer(?::\s*(?P<paths>.*))?\s*$")
_ASSIGNED = re.compile(r"(?:^|[^\w$-])([A-Za-z_]\w*)\+?=|\$\{([A-Za-z_]\w*):?=|\bfor\s+([A-Za-z_]\w*)", re.MULTILINE)
_NAMED = re.compile(r"\b(?:read|getopts|export|readonly|unset|typeset|declare)\b([^;&|\n]*)")
_FUNCTION = re.compile(r"^\s*(?:function\s+)?([A-Za-z_]\w*)\s*\(\s*\)|^\s*function\s+([A-Za-z_]\w*)", re.MULTILINE)
_HEREDOC = re.compile(r"<<-?\s*\\?(?P<quote>['\"]?)(?P<name>\w+)(?P=quote)")
_NAME = re.compile(r"[A-Za-z_]\w*")
# A shell has its own of these, or they belong to one run of the engine.
_OWN = re.compile(r"_|PWD|OLDPWD|SHLVL|PPID|UID|EUID|LINENO|OPTIND|RANDOM|BASH.*|(APPTAINER|SINGULARITY)_.*")
_CARRIED_OPTIONS = "eufaCv"
# More would not fit into the options of a mount.
MAX_PARTS = 60


@dataclass(frozen=True)
class Part:
    """Lines of %post between two marks. paths: what of %files is copied only now, by the beginning of its destination.

    title: what it is called, where that is no line of it.
    """

    text: str
    first_line: int
    last_line: int
    paths: tuple[str, ...] = ()
    title: str = ""


@dataclass(frozen=True)
class State:
    """What a shell remembers at the end of a part. leftover: what it must not leave, in words."""

    status: int
    options: str
    umask: str
    folder: str
    variables: Mapping[str, str | None]
    environment: Mapping[str, str]
    leftover: str = ""


def split_post(section: Section) -> tuple[Part, ...]:
    """Return the parts of %post; one, where it cannot be split. Marks in here-documents and in the middle of a line do not count."""
    if not is_splittable(section):
        return (_build_part(section.lines, section.line),)
    inner = set(_Scan(section).inner_marks)
    groups: list[tuple[tuple[str, ...], list[Line]]] = [((), [])]
    for line in section.lines:
        match = _MARK.match(line.text)
        if match and line.number not in inner and len(groups) < MAX_PARTS:
            groups.append((tuple((match["paths"] or "").split()), []))
        groups[-1][1].append(line)
    wanted = [each for each in groups if _is_meaningful(each[1]) or each[0]]
    return tuple(_build_part(lines, section.line, paths) for paths, lines in wanted)


def is_splittable(section: Section) -> bool:
    """Say whether there is a mark, the shell is the usual one, and the text ends where a command ends."""
    has_own_shell = bool(section.argument.split("#")[0].strip())
    has_mark = any(_MARK.match(line.text) for line in section.lines)
    return has_mark and not has_own_shell and not _Scan(section).is_open


def join_parts(parts: Sequence[Part], is_complete: Callable[[str], bool]) -> tuple[Part, ...]:
    """Join parts that are no whole programs, for a mark is in the middle of a block. is_complete: asks a shell."""
    joined: list[Part] = []
    for part in parts:
        if joined and not is_complete(joined[-1].text):
            before = joined.pop()
            paths = (*before.paths, *part.paths)
            joined.append(Part(before.text + part.text, before.first_line, part.last_line, paths))
        else:
            joined.append(part)
    return tuple(joined)


class _Scan:
    """What of a script is in here-documents or behind backslashes. inner_marks: their lines. is_open: so it is at its end."""

    def __init__(self, section: Section) -> None:
        self.inner_marks: list[int] = []
        self._terminators: list[str] = []
        self._is_continued = False
        for line in section.lines:
            self._add(line)
        self.is_open = bool(self._terminators) or self._is_continued

    def _add(self, line: Line) -> None:
        text = line.text
        if _MARK.match(text) and (self._terminators or self._is_continued):
            self.inner_marks.append(line.number)
        if self._terminators:
            if text.lstrip("\t") == self._terminators[0]:
                self._terminators.pop(0)
            return
        is_comment = text.lstrip().startswith("#") and not self._is_continued
        self._is_continued = text.endswith("\\") and not is_comment
        if not is_comment:
            self._terminators += [match["name"] for match in _HEREDOC.finditer(text)]


def build_script(part: Part, before: State | None) -> str:
    """Return what runs instead of a part: what was remembered, the part, and what notes down what is to be remembered."""
    functions = sorted({name for match in _FUNCTION.finditer(part.text) for name in match.groups() if name})
    names = sorted(set(find_names(part.text)) | set(before.variables if before else ()))
    return f"{_restore(before, names)}{part.text.rstrip(chr(10))}\n{_save(names, functions)}"


def find_names(text: str) -> list[str]:
    """Return the names of variables that a script may assign."""
    found = {name for match in _ASSIGNED.finditer(text) for name in match.groups() if name}
    for match in _NAMED.finditer(text):
        found |= {word.partition("=")[0] for word in match[1].split()}
    return sorted(name for name in found if _NAME.fullmatch(name) and not _OWN.fullmatch(name))


def parse_state(content: bytes, hidden: Sequence[str] = ()) -> State | None:
    """Parse what the end of a script has written; None where it is not whole. hidden: variables that must not be remembered."""
    head, separator, rest = content.partition(b"\0\0")
    items = [item.decode("utf-8", "surrogateescape") for item in head.split(b"\0")]
    if not separator or len(items) < 5 or not items[0].isdigit():
        return None
    pairs = (item.partition("=") for item in items[5:])
    variables = {name: value if equals else None for name, equals, value in pairs}
    exported = (item.decode("utf-8", "surrogateescape").partition("=") for item in rest.split(b"\0") if item)
    environment = {
        name: value
        for name, _, value in exported
        if _NAME.fullmatch(name) and not _OWN.fullmatch(name) and (name not in hidden or name in variables)
    }
    return State(
        int(items[0]),
        items[1].removeprefix("options:"),
        items[2],
        items[3],
        variables,
        environment,
        items[4].removeprefix("left:"),
    )


def _build_part(lines: Sequence[Line], start: int, paths: tuple[str, ...] = ()) -> Part:
    numbers = [line.number for line in lines if _is_meaningful([line])] or [start]
    return Part("".join(f"{line.text}\n" for line in lines), numbers[0], numbers[-1], paths)


def _is_meaningful(lines: Sequence[Line]) -> bool:
    return any(line.text.strip() and not line.text.strip().startswith("#") for line in lines)


def _restore(before: State | None, names: Sequence[str]) -> str:
    if before is None:
        return ""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in before.environment.items()]
    for name, value in before.variables.items():
        if value is None:
            lines.append(f"unset {name} || :")
        elif name not in before.environment:
            lines.append(f"{name}={shlex.quote(value)}")
    lines += [f"umask {before.umask}", f"cd {shlex.quote(before.folder)}"]
    lines += [f"set {'-' if letter in before.options else '+'}{letter}" for letter in _CARRIED_OPTIONS]
    lines += ["set -x"] if "x" in before.options else []
    return "{ set +x; } 2>/dev/null\n" + "\n".join(lines) + "\n"


def _save(names: Sequence[str], functions: Sequence[str]) -> str:
    """Return lines that write all down. The names of their own variables are unlikely in anybody's script."""
    checks = [f'case $(type {name} 2>&1) in *function*) jpa_left="the function {name}" ;; esac' for name in functions]
    values = [
        f"if [ -n \"${{{name}+set}}\" ]; then printf '{name}=%s\\0' \"${name}\"; else printf '{name}\\0'; fi"
        for name in names
    ]
    lines = [
        "{ jpa_status=$? jpa_options=$-; set +eufaCvx; } 2>/dev/null",
        "jpa_left=",
        *checks,
        f"trap >{STATE_FILE}",
        f'[ ! -s {STATE_FILE} ] || jpa_left="a trap"',
        '[ -z "$!" ] || ! kill -0 "$!" 2>/dev/null || jpa_left="a process in the background"',
        "{",
        '    printf \'%s\\0\' "$jpa_status" "options:$jpa_options" "$(umask)" "$PWD" "left:$jpa_left"',
        *(f"    {line}" for line in values),
        "    printf '\\0'",
        "    cat /proc/self/environ",
        f"}} >{STATE_FILE}",
        "exit 0",
    ]
    return "\n".join(lines) + "\n"
