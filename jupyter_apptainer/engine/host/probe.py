"""What a check of this machine finds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Status = Literal["ok", "warn", "fail"]

ROOT = Path("/")


@dataclass(frozen=True)
class Probe:
    """One finding.

    status: "ok"; "warn": something will be slower or missing; "fail": kernels will not start.
    detail: what was seen, and what it means. fix: the command that mends it, or what to ask for; None where nothing can be done.
    """

    name: str
    status: Status
    detail: str
    fix: str | None = None

    def to_json(self) -> dict[str, str | None]:
        """The same for programs."""
        return {"name": self.name, "status": self.status, "detail": self.detail, "fix": self.fix}


def read_text(path: Path) -> str:
    """Return the content of a file of the kernel's or the system's; empty where it is not there or not for us."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
