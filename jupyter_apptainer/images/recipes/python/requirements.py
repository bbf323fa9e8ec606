"""requirements.txt as pip reads it: nested files put in their place, local files listed, mistakes found before pip finds them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement

from ..findings import Finding, Severity, find_nearest

_OPTIONS = (
    "--requirement",
    "--constraint",
    "--editable",
    "--index-url",
    "--extra-index-url",
    "--no-index",
    "--find-links",
    "--no-binary",
    "--only-binary",
    "--prefer-binary",
    "--require-hashes",
    "--pre",
    "--trusted-host",
    "--use-feature",
)
_SHORT = {"-r": "--requirement", "-c": "--constraint", "-e": "--editable", "-i": "--index-url", "-f": "--find-links"}
_COMMENT = re.compile(r"(^|\s+)#.*$")
_PASSWORD = re.compile(r"://[^/@\s:]+:[^/@\s$]+@")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
_ADDRESS = re.compile(r"^[a-z+]+://|^(git|hg|svn|bzr)\+")
_PER_REQUIREMENT = re.compile(r"\s--(hash|config-settings?|global-option)[ =].*$")
_ARCHIVE = (".whl", ".tar.gz", ".zip", ".tar.bz2")


@dataclass
class Requirements:
    """lines: for pip, without comments. files: paths below `folder` that they name."""

    folder: Path
    lines: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def read(self, path: Path) -> None:
        """Add the lines of a file, and of those that it names."""
        self._read(path, set())

    def add(self, text: str, number: int, *, path: Path, seen: set[Path] | None = None) -> None:
        """Add one line; path: the file that it is in, which nested paths start from."""
        self._check_text(text, number)
        option, value = _split_option(text)
        if option == "--requirement":
            self._nest(value, number, path, seen if seen is not None else set())
        elif option in ("--constraint", "--find-links"):
            self.lines.append(f"{option} {self._keep(value, number, path)}")
        elif option == "--editable":
            self._report(
                number, "warning", "editable", f"{value} is installed as it is now, not as a link to its source"
            )
            self.lines.append(value if _ADDRESS.match(value) else f"./{self._keep(value, number, path)}")
        elif option:
            self.lines.append(text)
            if option.split("=")[0] not in _OPTIONS:
                near = find_nearest(option, _OPTIONS)
                hint = f"did you mean {near}?" if near else "only pip's options for requirement files can be here"
                self._report(number, "error", "option-unknown", f"unknown option {option}", hint)
        elif _is_path(text):
            self.lines.append(f"./{self._keep(text.split(' ')[0], number, path)}")
        else:
            self._check_requirement(text, number)
            self.lines.append(text)

    @property
    def names(self) -> set[str]:
        """The names of the packages, as PyPI compares them."""
        found = (re.match(r"[A-Za-z0-9._-]+", line) for line in self.lines if not line.startswith(("-", ".")))
        return {re.sub(r"[-_.]+", "-", match[0]).lower() for match in found if match}

    def _read(self, path: Path, seen: set[Path]) -> None:
        seen.add(path.resolve())
        pending, start = "", 0
        for number, raw in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
            start = start or number
            text = pending + raw
            if raw.endswith("\\"):
                pending = text[:-1]
                continue
            clean = _COMMENT.sub("", text).strip()
            if clean:
                self.add(clean, start, path=path, seen=seen)
            pending, start = "", 0

    def _nest(self, value: str, number: int, path: Path, seen: set[Path]) -> None:
        nested = path.parent / value
        if _ADDRESS.match(value):
            self.lines.append(f"--requirement {value}")
        elif not nested.is_file():
            self._report(number, "error", "file-missing", f"there is no file {value}")
        elif nested.resolve() not in seen:
            self._read(nested, seen)

    def _keep(self, value: str, number: int, path: Path) -> str:
        """Return a local path as it is below `folder`, and have it copied; an address stays."""
        plain = value.removeprefix("file://")
        if _ADDRESS.match(value) and plain == value:
            return value
        extra = re.search(r"\[[^\]]*\]$", plain)
        plain = plain[: extra.start()] if extra else plain
        found = path.parent / plain
        if not found.exists():
            self._report(number, "error", "file-missing", f"there is no {plain}")
            return value
        try:
            inside = str(PurePosixPath(found.resolve().relative_to(self.folder.resolve())))
        except ValueError:
            self._report(
                number, "error", "file-outside", f"{plain} is outside {self.folder}", "copy it into that folder"
            )
            return value
        self.files.append(inside)
        return inside + (extra[0] if extra else "")

    def _check_text(self, text: str, number: int) -> None:
        if _PASSWORD.search(text):
            self._report(
                number,
                "warning",
                "password",
                "the password in this address stays in the image, for all who have it",
                "put the address into pip's own configuration and build with --host-settings",
            )
        for name in _VARIABLE.findall(text):
            self._report(number, "warning", "variable", f"${{{name}}} is not set during a build", "write its value")

    def _check_requirement(self, text: str, number: int) -> None:
        plain = _PER_REQUIREMENT.sub("", text)
        if _ADDRESS.match(plain):
            return
        try:
            Requirement(plain)
        except InvalidRequirement as error:
            hint = "write == for an exact version" if re.match(r"^[\w.-]+\s*=[^=]", plain) else ""
            reason = str(error).split("\n")[0]
            self._report(number, "error", "requirement-invalid", f"{plain!r} is no requirement: {reason}", hint)

    def _report(self, line: int, severity: Severity, code: str, reason: str, hint: str = "") -> None:
        self.findings.append(Finding(line, severity, code, reason, hint))


def _split_option(text: str) -> tuple[str, str]:
    if not text.startswith("-"):
        return "", text
    if not text.startswith("--"):
        return _SHORT.get(text[:2], text.split()[0]), text[2:].lstrip(" =")
    word = re.split(r"[ =]", text, maxsplit=1)
    return word[0], word[1].strip() if len(word) == 2 else ""


def _is_path(text: str) -> bool:
    word = text.split(" ")[0]
    return word.startswith((".", "/", "file:")) or (word.endswith(_ARCHIVE) and "://" not in text and "@" not in text)
