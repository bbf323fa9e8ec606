"""A definition file being made: stages that are filled section by section, and their text in the end.

What the engine would take for more than text is written so that it stays text: `{{ NAME }}`, a per cent sign or the word
`Bootstrap:` at the beginning of a line of somebody's script.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

INDENT = "    "
_TEMPLATE = re.compile(r"{{(?=\s*\w+\s*}})")
_OPEN = "TWO_BRACES"
# Stand for the braces of an argument that is meant as one.
_ARGUMENT_BEGIN, _ARGUMENT_END = "\x01", "\x02"
_MISREAD = re.compile(r"^(\s*%|bootstrap:)", re.IGNORECASE | re.MULTILINE)
_QUOTED_PATH = re.compile(r"""[\s"']""")


@dataclass
class StageDraft:
    """One stage. files: (source, destination, stage or ""). post and the like: lines, as they shall stand."""

    agent: str
    origin: str
    name: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    files: list[tuple[str, str, str]] = field(default_factory=list)
    post: list[str] = field(default_factory=list)
    environment: list[str] = field(default_factory=list)
    runscript: list[str] = field(default_factory=list)
    startscript: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    help: list[str] = field(default_factory=list)

    def render(self) -> str:
        """Return the stage's text."""
        lines = [f"Bootstrap: {self.agent}"]
        lines += [f"From: {self.origin}"] if self.origin else []
        lines += [f"{key}: {value}" for key, value in self.headers.items()]
        lines += [f"Stage: {self.name}"] if self.name else []
        # Above `Bootstrap:` they would belong to the last section of the stage before.
        lines += [f"# {note}" for note in self.notes]
        parts = ["\n".join(lines) + "\n", *self._render_files()]
        sections = (
            ("post", self.post),
            ("environment", self.environment),
            ("runscript", self.runscript),
            ("startscript", self.startscript),
            ("test", self.test),
            ("labels", [f"{key} {value}" for key, value in self.labels.items()]),
            ("help", self.help),
        )
        parts += [_render_section(f"%{name}", body) for name, body in sections if body]
        return _protect_templates("\n".join(parts))

    def _render_files(self) -> list[str]:
        stages = list(dict.fromkeys(stage for _, _, stage in self.files))
        return [
            _render_section(
                f"%files from {stage}" if stage else "%files",
                [f"{_quote(source)} {_quote(target)}" for source, target, origin in self.files if origin == stage],
            )
            for stage in stages
        ]


def render_definition(stages: Iterable[StageDraft], notes: Sequence[str] = ()) -> str:
    """Return the text of a definition file. notes: comments above the first stage."""
    head = "".join(f"# {note}\n" for note in notes)
    return head + "\n\n".join(stage.render() for stage in stages)


def build_argument(name: str) -> str:
    """Return what becomes `{{ name }}` in the definition."""
    return f"{_ARGUMENT_BEGIN} {name} {_ARGUMENT_END}"


def is_misread(script: str) -> bool:
    """Say whether the engine would take a line of `script` for the beginning of a section or a stage."""
    return bool(_MISREAD.search(script))


def build_subshell(script: str) -> list[str]:
    """Return lines that run `script` as `sh -c` would: its own variables and folder, and only its last status counts."""
    if is_misread(script):
        return [*build_command(["/bin/sh", "-c"], script)]
    lines = script.rstrip("\n").split("\n")
    # Lines of somebody's script keep their place: they may be in the middle of a text.
    return ["( set +e", INDENT + lines[0], *(f"\0{line}" for line in lines[1:]), ")"]


def build_command(shell: Sequence[str], script: str) -> list[str]:
    """Return lines that give `script` as one word to a program."""
    words = " ".join(shlex.quote(word) for word in shell)
    if not is_misread(script):
        first, *rest = shlex.quote(script.rstrip("\n")).split("\n")
        return [f"{words} {first}", *(f"\0{line}" for line in rest)]
    return [f'{words} "$({build_print(script)[0]}', *build_print(script)[1:-1], f'{build_print(script)[-1]})"']


def build_print(text: str) -> list[str]:
    """Return lines of one command that prints `text`, no line of which can be misread."""
    quoted = [INDENT + shlex.quote(line) if line else INDENT + "''" for line in text.rstrip("\n").split("\n")]
    # A word without quotes could be misread still.
    quoted = [f"{INDENT}'{line.strip()}'" if is_misread(line) else line for line in quoted]
    return ["printf '%s\\n' \\", *(f"{line} \\" for line in quoted[:-1]), quoted[-1]]


def _render_section(head: str, body: Iterable[str]) -> str:
    # A line that begins with a zero stands where it was in somebody's script.
    lines = (line[1:] if line.startswith("\0") else f"{INDENT}{line}" if line else "" for line in body)
    return f"{head}\n" + "\n".join(lines) + "\n"


def _protect_templates(text: str) -> str:
    protected = _TEMPLATE.sub(lambda _: f"{{{{ {_OPEN} }}}}", text)
    if protected != text:
        # An argument whose value is the two braces themselves is replaced once, and not looked at again.
        protected += f"\n%arguments\n{INDENT}{_OPEN}={{{{\n"
    return protected.replace(_ARGUMENT_BEGIN, "{{").replace(_ARGUMENT_END, "}}")


def _quote(path: str) -> str:
    return f'"{path}"' if _QUOTED_PATH.search(path) else path
