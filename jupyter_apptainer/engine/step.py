"""Programs other than the engine that are needed to get one: apt-get, dpkg-deb, patchelf, dnf, conda.

They run through the engine's `Runner`, so that they have the same deadlines and are stopped in the same way.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence

from .command import Command, Completed
from .output import OnText
from .runner import Runner

OnProgress = Callable[[str], None]
"""Told in one short sentence what begins now."""

# A service or `env -i` may leave PATH without the folders of administration programs.
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class StepError(Exception):
    """A step did not work. `reason` is one line for people; `log_tail` the last lines that the program printed."""

    def __init__(self, reason: str, log_tail: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.log_tail = tuple(log_tail)


def build_step_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a step: the ambient one with messages in English and a complete PATH."""
    env = dict(os.environ if environ is None else environ)
    env["PATH"] = ":".join(filter(None, (env.get("PATH"), _SYSTEM_PATH)))
    env["LC_ALL"] = "C"
    for name in ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LD_PRELOAD"):
        env.pop(name, None)
    return env


def find_program(name: str, environ: Mapping[str, str] | None = None) -> str | None:
    """Return the absolute path of a program that a step would run, or None."""
    return shutil.which(name, path=build_step_environment(environ)["PATH"])


def run_step(
    argv: Sequence[str],
    title: str,
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    timeout_s: float = 120,
    on_text: OnText | None = None,
    ok_codes: Sequence[int] = (0,),
) -> Completed:
    """Run one program to its end. Raises StepError for an exit status that is not in `ok_codes`, and CommandTimeout."""
    command = Command(
        tuple(argv), env or build_step_environment(), lambda done: done, title, timeout_s=timeout_s, cwd=cwd
    )
    try:
        completed = Runner().complete(command, on_text=on_text)
    except OSError as error:
        raise StepError(f"could not {title}: {argv[0]}: {error.strerror}") from error
    if completed.returncode not in ok_codes:
        tail = [line for line in (completed.stderr or completed.stdout).splitlines() if line.strip()]
        reason = next(
            (line for line in tail if line.startswith(("E:", "error", "Error", "FATAL"))), tail[-1:] and tail[-1]
        )
        raise StepError(f"could not {title}: {reason or f'exit status {completed.returncode}'}", tail)
    return completed
