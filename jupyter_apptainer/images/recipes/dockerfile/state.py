"""What a Dockerfile has said so far in one stage, and the definition stage that is made of it."""

from __future__ import annotations

import copy
import shlex
from dataclasses import dataclass, field

from ..findings import Finding, Severity
from ..write import StageDraft
from .instructions import Instruction
from .words import Word, expand

DEFAULT_SHELL = ("/bin/sh", "-c")
# Where copied files wait for their turn: %files runs before %post, whatever stands in between.
STAGING = "/.copied"


@dataclass
class StageState:
    """values: ARG and ENV; None where only a shell knows. workdir: for a shell's double quotes.

    is_command_own: given in this stage, and not in the one that it begins with. has_shell: false for images that are known to have none, where nothing can run. is_scripted: a script has run before.
    """

    draft: StageDraft
    escape: str = "\\"
    alias: str = ""
    values: dict[str, str | None] = field(default_factory=dict)
    arguments: set[str] = field(default_factory=set)
    workdir: Word = field(default_factory=lambda: Word(("/",)))
    shell: tuple[str, ...] = DEFAULT_SHELL
    user: str = ""
    entrypoint: Instruction | None = None
    command: Instruction | None = None
    is_command_own: bool = False
    has_shell: bool = True
    is_scripted: bool = False
    copies: int = 0
    findings: list[Finding] = field(default_factory=list)

    def expand(self, text: str) -> Word:
        """Expand a word with what is known here."""
        return expand(text, self.values, self.escape)

    def report(self, instruction: Instruction, severity: Severity, code: str, reason: str, hint: str = "") -> None:
        """Add a finding; what is no error is also said in the definition file."""
        self.findings.append(Finding(instruction.line, severity, code, reason, hint))
        if severity != "error":
            self.draft.notes.append(f"Dockerfile line {instruction.line}: {reason}")

    def add(self, *lines: str) -> None:
        """Add lines to %post."""
        self.draft.post += lines

    def end_layer(self) -> None:
        """Let what comes next be a layer of its own; see `images.layering`."""
        self.add("# layer")

    def set_variable(self, name: str, word: Word, *, is_environment: bool) -> None:
        """Set a variable for what follows, and for the finished image where it belongs there."""
        known = word.known
        value = shlex.quote(known) if known is not None else word.shell
        self.values[name] = known
        if self.has_shell:
            self.add(*_build_assignment(name, value))
        if is_environment:
            self.draft.environment += _build_assignment(name, value)

    def fork(self, alias: str) -> StageState:
        """Return the state of a stage that begins where this one ends (`FROM alias`)."""
        child = copy.deepcopy(self)
        child.draft.name = alias
        child.alias = alias
        # Reported once, by the stage where they are.
        child.findings = []
        # Arguments end with their stage.
        for name in sorted(child.arguments):
            child.values.pop(name, None)
            child.add(*([f"unset {name}"] if child.has_shell else []))
        child.is_command_own = False
        child.arguments = set()
        return child


def _build_assignment(name: str, value: str) -> list[str]:
    first, *rest = f"export {name}={value}".split("\n")
    return [first, *(f"\0{line}" for line in rest)]


def join_path(folder: Word, path: Word) -> Word:
    """Return `path` as seen from `folder`; an absolute path stays."""
    first = path.parts[0] if path.parts else ""
    # A variable at the beginning is an absolute path in practice: `WORKDIR $HOME`.
    if not isinstance(first, str) or first.startswith("/"):
        return path
    if not first.removeprefix("./").removeprefix("."):
        return folder if len(path.parts) <= 1 else Word((*folder.parts, "/", *path.parts[1:]))
    inside = first.removeprefix("./")
    slash = "" if folder.parts[-1:] and str(folder.parts[-1]).endswith("/") else "/"
    return Word((*folder.parts, slash + inside, *path.parts[1:]))
