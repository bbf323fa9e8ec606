"""RUN --mount=type=secret: a secret of the build at the place where the command looks for it, while that runs."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath

# Where builds show their secrets: MOUNT_POINT of build_secrets.
_SECRETS = "/mnt/secrets"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEYS = frozenset({"type", "id", "target", "dst", "destination", "required", "env", "mode", "uid", "gid"})


@dataclass(frozen=True)
class SecretMount:
    """name: of the secret. target: the path that the command reads, "" for none. variable: that it sees, "" for none."""

    name: str
    target: str
    variable: str
    is_required: bool

    @property
    def begin(self) -> list[str]:
        """Lines before the command. The trace of the shell, which the log has, would show what it reads."""
        source = f"{_SECRETS}/{self.name}"
        lines = ["{ set +x; } 2>/dev/null"]
        if self.is_required:
            message = shlex.quote(f"the secret {self.name} is needed: --secret id={self.name},src=FILE")
            lines.append(f"[ -e {source} ] || {{ echo {message} >&2; exit 1; }}")
        if self.target:
            folder = shlex.quote(str(PurePosixPath(self.target).parent))
            link = f"mkdir -p {folder} && ln -sfn {source} {shlex.quote(self.target)}"
            lines.append(f"if [ -e {source} ]; then {link}; fi")
        if self.variable:
            lines.append(f'if [ -e {source} ]; then {self.variable}="$(cat {source})"; export {self.variable}; fi')
        return lines

    @property
    def end(self) -> list[str]:
        """Lines after the command."""
        lines = [f"unset {self.variable}"] if self.variable else []
        if self.target:
            lines.append(f"if [ -L {shlex.quote(self.target)} ]; then rm {shlex.quote(self.target)}; fi")
            if self.target.startswith("/run/secrets/"):
                lines.append("rm -d /run/secrets 2>/dev/null || :")
        return [*lines, "set -x"]


def parse_secret_mount(value: str) -> SecretMount | None:
    """Parse what stands behind `--mount=`; None for another type, and for what we have no counterpart of."""
    fields = dict(part.strip().partition("=")[::2] for part in value.split(","))
    target = fields.get("target") or fields.get("dst") or fields.get("destination") or ""
    name = fields.get("id") or PurePosixPath(target).name
    variable = fields.get("env", "")
    if fields.get("type") != "secret" or set(fields) - _KEYS or not _NAME.fullmatch(name):
        return None
    if (variable and not _VARIABLE.fullmatch(variable)) or (target and not target.startswith("/")):
        return None
    is_required = "required" in fields and fields["required"] in ("", "true", "1")
    # With a variable there is no file, unless one is asked for.
    return SecretMount(name, target or ("" if variable else f"/run/secrets/{name}"), variable, is_required)
