"""What the host knows about a process that uses a GPU. Read once for each process: none of it changes while it runs."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from ..instances.process import ProcessIdentity, read_command_line, read_namespace, read_stat

_WANTED = ("APPTAINER_INSTANCE", "SINGULARITY_INSTANCE", "JPY_SESSION_NAME", "JPY_PARENT_PID")
_MAX_NAME = 60


@dataclass(frozen=True)
class ProcessFacts:
    """identity: None for a process that is not seen from here. uid: -1 for unknown.

    instance: the engine's name of the container that it runs in. notebook, server_pid: what a Jupyter server tells its kernels, and
    the kernels hand on to what they start.
    """

    pid: int
    identity: ProcessIdentity | None
    uid: int = -1
    session: int = 0
    pid_namespace: int | None = None
    program: str = ""
    instance: str = ""
    notebook: str = ""
    server_pid: int | None = None

    @property
    def user(self) -> str:
        """The user's name, where there is one."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except (KeyError, OverflowError):
            return str(self.uid) if self.uid >= 0 else ""


def read_facts(pid: int) -> ProcessFacts:
    """Look at one process."""
    stat = read_stat(pid)
    if stat is None:
        return ProcessFacts(pid, None)
    variables = _read_variables(pid)
    server = variables.get("JPY_PARENT_PID", "")
    return ProcessFacts(
        pid=pid,
        identity=ProcessIdentity(pid, stat.start_ticks),
        uid=_read_uid(pid),
        session=stat.session,
        pid_namespace=read_namespace(pid, "pid"),
        program=_describe_program(pid) or stat.comm,
        instance=variables.get("APPTAINER_INSTANCE") or variables.get("SINGULARITY_INSTANCE", ""),
        notebook=variables.get("JPY_SESSION_NAME", ""),
        server_pid=int(server) if server.isdigit() else None,
    )


def _read_uid(pid: int) -> int:
    """The folder's owner is root for programs that let nobody look at them; this is the user all the same."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return -1
    return next((int(line.split()[1]) for line in lines if line.startswith("Uid:")), -1)


def _read_variables(pid: int) -> dict[str, str]:
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (word.decode("utf-8", "replace").partition("=") for word in raw.split(b"\0"))
    return {name: value for name, _, value in pairs if name in _WANTED}


def _describe_program(pid: int) -> str:
    """The program and its first words, without its folder: `python train.py`."""
    program, _, rest = read_command_line(pid).partition(" ")
    text = f"{os.path.basename(program)} {rest}".strip()
    return text if len(text) <= _MAX_NAME else text[: _MAX_NAME - 1] + "…"
