"""One row of the table."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from ...errors import ApptainerError

# cause: the engine's errors and what follows them; log: its messages of all levels; anywhere: programs' output too.
Where = Literal["cause", "log", "anywhere"]
Hint = str | Callable[[Mapping[str, str]], str]


@dataclass(frozen=True)
class Rule:
    """One row: `pattern` is searched in the output without colours and noise.

    message, hint: may use the pattern's named groups, {subject}, {title} and {overlay} (the writable overlay of the command
    line); a group that is not there is the subject. A hint that is a function gets the same words.
    only_with: an option that must have been on the command line. is_warning: counts also where the run succeeded.
    """

    name: str
    pattern: re.Pattern[str]
    error: type[ApptainerError]
    message: str
    hint: Hint | None = None
    where: Where = "cause"
    only_with: str | None = None
    is_warning: bool = False


def build_row(
    name: str,
    pattern: str,
    error: type[ApptainerError],
    message: str,
    hint: Hint | None = None,
    *,
    where: Where = "cause",
    only_with: str | None = None,
    is_warning: bool = False,
) -> Rule:
    """Make a row; `^` and `$` in `pattern` match at lines."""
    return Rule(name, re.compile(pattern, re.MULTILINE), error, message, hint, where, only_with, is_warning)
