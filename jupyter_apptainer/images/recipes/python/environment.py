"""environment.yml as conda reads it: checked with lines, and kept as it was written."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ..findings import Finding, Severity, find_nearest
from .requirements import Requirements

_KEYS = ("name", "channels", "dependencies", "variables", "prefix", "platforms")
_DEPENDENCY = re.compile(r"^(?:[\w./-]+::)?(?P<name>[A-Za-z0-9_.-]+)(?P<version>\s*(?:\[.*\]|[=<>!~ ].*))?$")
_NOTE = re.compile(r"""^["']?\s+#\s*(?P<note>(?:apt|pip)\s*:.*)$""")
_BUILD_PIN = re.compile(r"^[^=\s]+=[^=\s]+=[^=\s]+$")


@dataclass(frozen=True)
class CondaPackage:
    """A dependency as it is written. note: what a comment behind it says that it is without conda, as `apt: gcc`."""

    text: str
    line: int
    note: str = ""


@dataclass
class Environment:
    """text: for conda. names: of packages of conda. pip: what pip shall add.

    variables: for the finished image.
    """

    text: str
    names: set[str] = field(default_factory=set)
    packages: list[CondaPackage] = field(default_factory=list)
    pip: Requirements | None = None
    variables: dict[str, str] = field(default_factory=dict)
    python: str = ""
    findings: list[Finding] = field(default_factory=list)

    def report(self, node: yaml.Node, severity: Severity, code: str, reason: str, hint: str = "") -> None:
        """Add a finding at the line of a node."""
        self.findings.append(Finding(node.start_mark.line + 1, severity, code, reason, hint))


def parse_environment(text: str, path: Path, folder: Path) -> Environment:
    """Parse the text of an environment.yml; path: where it lies, which nested files start from; folder: of all files."""
    found = Environment(text)
    requirements = Requirements(folder)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        reason = f"not YAML: {error.problem}"
        hint = "YAML wants spaces, not tabs" if "\\t" in reason else ""
        found.findings.append(Finding(line, "error", "syntax", reason, hint))
        return found
    if not isinstance(root, yaml.MappingNode):
        found.findings.append(Finding(1, "error", "syntax", "an environment is a mapping with `dependencies:`"))
        return found
    keys = {key.value: (key, value) for key, value in root.value}
    for name, (key, _) in keys.items():
        if name not in _KEYS:
            near = find_nearest(name, _KEYS)
            found.report(
                key,
                "error" if near else "warning",
                "key-unknown",
                f"unknown key {name}",
                near and f"did you mean {near}?",
            )
    if "prefix" in keys:
        found.report(keys["prefix"][0], "note", "prefix", "prefix: is left out; the environment is in /opt/env")
    if "dependencies" in keys:
        _read_dependencies(found, keys["dependencies"][1], path, requirements)
    else:
        found.report(root, "error", "no-dependencies", "there is no `dependencies:`")
    if "variables" in keys and isinstance(keys["variables"][1], yaml.MappingNode):
        found.variables = {key.value: value.value for key, value in keys["variables"][1].value}
    return found


def _read_dependencies(found: Environment, node: yaml.Node, path: Path, requirements: Requirements) -> None:
    if not isinstance(node, yaml.SequenceNode):
        found.report(node, "error", "dependencies-list", "dependencies: expected a list", "begin each line with a dash")
        return
    for each in node.value:
        if isinstance(each, yaml.MappingNode):
            found.pip = requirements
            _read_pip(found, each, path, requirements)
        elif isinstance(each, yaml.ScalarNode):
            _read_package(found, each)
        else:
            found.report(each, "error", "dependency-invalid", "a dependency is a name, or `pip:` with a list")
    if found.pip is not None and "pip" not in found.names:
        found.report(node, "warning", "no-pip", "there is a `pip:` list but no pip among the packages", "add `- pip`")


def _read_package(found: Environment, node: yaml.ScalarNode) -> None:
    text = node.value.strip()
    match = _DEPENDENCY.match(text)
    if not match:
        found.report(node, "error", "dependency-invalid", f"{text!r} is no package of conda")
        return
    name = match["name"].lower()
    found.names.add(name)
    found.packages.append(CondaPackage(text, node.start_mark.line + 1, _find_note(found.text, node)))
    if name == "python":
        version = re.search(r"\d+(?:\.\d+)?", match["version"] or "")
        found.python = version[0] if version else ""
    if _BUILD_PIN.match(text) and "==" not in text:
        found.report(
            node,
            "warning",
            "build-pinned",
            f"{text} names one build, which may be gone or belong to another kind of machine",
            "`conda env export --no-builds` leaves them out",
        )


def _find_note(text: str, node: yaml.ScalarNode) -> str:
    rest = text[node.end_mark.index :].partition("\n")[0]
    match = _NOTE.match(rest)
    return match["note"].strip() if match else ""


def _read_pip(found: Environment, node: yaml.MappingNode, path: Path, requirements: Requirements) -> None:
    for key, value in node.value:
        if key.value != "pip" or not isinstance(value, yaml.SequenceNode):
            found.report(key, "error", "dependency-invalid", f"{key.value}: expected `pip:` with a list")
            continue
        for each in value.value:
            if isinstance(each, yaml.ScalarNode):
                requirements.add(each.value, each.start_mark.line + 1, path=path)
    found.findings += requirements.findings
    requirements.findings.clear()
