"""THE table: what the engine prints -> which error it is, and what to do.

The engine's exit statuses say little (255 for any FATAL, 1 for flags and for its C part), so text decides. Order counts:
the first rule that matches wins, and the first FATAL line is the cause while the last only repeats that something failed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .. import errors
from ..errors import ApptainerError, CommandError
from .command import Completed, strip_ansi


@dataclass(frozen=True)
class Rule:
    """One row: `pattern` is searched in the output without colours; `message` may use its named groups and {subject}."""

    name: str
    pattern: re.Pattern[str]
    error: type[ApptainerError]
    message: str
    hint: str | None = None


RULES: tuple[Rule, ...] = ()


def diagnose(completed: Completed, *, title: str, subject: str = "", shown: str | None = None) -> ApptainerError:
    """Explain a failed run.

    title: what was tried, as in "start instance X"; subject: the object it was about; shown: the redacted command line.
    """
    text = strip_ansi(completed.stderr + "\n" + completed.stdout)
    tail = [line for line in strip_ansi(completed.stderr).splitlines() if line.strip()]
    return CommandError(
        f"could not {title}: exit status {completed.returncode}",
        command=shown,
        returncode=completed.returncode,
        log_tail=tail or text.splitlines(),
    )


__all__ = ["RULES", "Rule", "diagnose", "errors"]
