"""What was read of a pasted command so far: fields of a kernel's configuration, and what is to be said about it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ..fields import is_uri
from ..remarks import Remarks
from .words import Word

# Set by a batch system, or by the launcher of an MPI program.
_JOB_VARIABLES = ("SLURM_", "PBS_", "LSB_", "SGE_", "OMPI_", "PMI_")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass
class Reading:
    """Fields of the configuration, and what is to be said.

    variables: those of this host. unset: why a variable of the script has no value. exported: names that the script exported.
    cwd: where relative paths begin. network: what `--net` and `--network` asked for.
    """

    variables: Mapping[str, str]
    unset: Mapping[str, str]
    exported: Collection[str]
    cwd: str
    remarks: Remarks
    config: dict[str, object] = field(default_factory=dict)
    network: str = ""

    def append(self, name: str, *values: str) -> None:
        """Add to a field that is a list."""
        found = self.config.setdefault(name, [])
        assert isinstance(found, list)
        found.extend(value for value in values if value not in found)

    def set_env(self, name: str, value: str) -> None:
        """Add a variable of the kernel."""
        found = self.config.setdefault("env", {})
        assert isinstance(found, dict)
        found[name] = value

    def explain_unknown(self, word: Word, *, about: str = "") -> bool:
        """Note what could not be filled in in `word`; say whether there was something."""
        for written in word.unknown:
            self.remarks.error(*self.describe_unknown(written), word.line, about=about)
        return bool(word.unknown)

    def describe_unknown(self, written: str) -> tuple[str, str]:
        """Say why `written` could not be filled in, and the way out."""
        name = (_NAME.search(written) or [written])[0]
        if written.startswith(("$(", "`")):
            return f"{written} would have to be run", "write what it prints"
        if re.fullmatch(r"\$\{?[0-9@*#]\}?", written):
            return f"{written} is an argument of the script", "write its value"
        if name in self.unset:
            return f"the variable {name} has no value: {self.unset[name]}", "write the value"
        if name.startswith(_JOB_VARIABLES):
            return f"the variable {name} exists only within a job", "write the value, or start Jupyter within the job"
        if written == f"${{{name}}}":
            return f"the variable {name} is not set here", f"write the value, or set it first: export {name}=VALUE"
        return f"{written} can only be worked out by a shell", "write the value"

    def make_path(self, text: str, word: Word) -> str:
        """Return a path as a kernel.json has it: absolute; variables that are not known here are left to the start."""
        if is_uri(text) or text.startswith("${"):
            return text
        path = text if word.unknown else text.replace("$", "$$")
        return os.path.normpath(os.path.join(self.cwd, path))

    def check_exists(self, path: str, word: Word, what: str) -> None:
        """Note a path that is not there."""
        if not word.unknown and not os.path.exists(path.replace("$$", "$")):
            self.remarks.error(f"{what} does not exist: {path}", "create it, or correct the path", word.line)
