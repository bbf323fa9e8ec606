"""A kernelspec of ours and whether it could start, for programs. Values of variables that look secret are left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..engine.command import REDACTED, is_secret_name
from .health import Finding
from .kernelspecs import Kernelspec


def describe_kernelspec(found: Kernelspec, findings: Sequence[Finding]) -> dict[str, object]:
    """Return what there is to know, as JSON."""
    return {
        "name": found.name,
        "display_name": found.display_name,
        "language": found.language,
        "folder": str(found.folder),
        "config": hide_secrets(found.config),
        "is_ready": all(finding.status == "ok" for finding in findings),
        "findings": [asdict(finding) for finding in findings],
    }


def hide_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a kernel's configuration without the values of variables that look secret."""
    env = config.get("env")
    if not isinstance(env, dict):
        return dict(config)
    return {**config, "env": {name: REDACTED if is_secret_name(name) else value for name, value in env.items()}}
