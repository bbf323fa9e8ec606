"""From a failed run to an error: picks the engine's own words out of the output, and asks the table in `failures`.

The engine's exit statuses say little (255 for any FATAL, 1 for flags and for its C part), so text decides. The first FATAL
or ERROR line is the cause; later ones only repeat that something failed.
"""

from __future__ import annotations

import re
import signal
from collections import defaultdict
from collections.abc import Mapping, Sequence

from ..errors import ApptainerError, BuildError, CommandError, RegistryError
from .command import Completed, strip_ansi
from .failures import RULES, Rule, Where

# sylog.go pads to nine characters ("ERROR:   text"), message.c too ("ERROR  : text"); -d puts ids and a function there instead.
# Exactly so: pip and others print "ERROR: text", and that is no word of the engine.
_LEVEL = re.compile(r"(FATAL|ERROR|ABRT|WARNING|INFO|VERBOSE|DEBUG|LOG) *: +")
_DEBUG_PREFIX = re.compile(r"(FATAL|ERROR|ABRT|WARNING|INFO|VERBOSE|DEBUG|LOG) +\[U=\d+,P=\d+\] +\S+\(\) +")
# "Error for command" is cobra's; "source:" is the shell interpreter in the engine, which reads the image's environment.
_CAUSE_LINE = re.compile(r'^(?:Error for command "[^"]*": |source: )')
_CAUSE_LEVELS = ("FATAL", "ERROR", "ABRT")
# What the engine says after or beside the cause, and what it always says.
_NOISE = re.compile(
    r"container cleanup failed: no instance found with name"
    r"|Terminating \S+ after timeout"
    r"|Timeouts can be caused by a running background process"
    r"|Cleanup error: "
    r"|No default remote in use, falling back to default keyserver"
    r"|gocryptfs not found"
    r"|Instance stats will not be available"
    r"|Detected Singularity user configuration directory"
    r"|A system administrator may need to enable user namespaces, install"
    r"|apptainer-suid, or compile with"
    r"|while executing starter: failed to start instance: while running \S+: exit status \d+"
    r"|\[[-=|/\\ ]+\] +\d+/\d+ +\d+%"
)
# Enough for every message of the engine; a build may have printed megabytes before.
_SEARCHED_CHARACTERS = 200_000


def diagnose(completed: Completed, *, title: str, subject: str = "", shown: str | None = None) -> ApptainerError:
    """Explain a failed run.

    title: what was tried, as in "start instance X"; subject: the object it was about; shown: the redacted command line.
    """
    lines = _select_lines(completed)
    texts = _split_by_origin(lines)
    facts = {"title": title, "subject": subject or "it", "overlay": _find_overlay(completed.argv)}
    found = _find_rule(texts, completed.argv)
    if found:
        return _build_error(*found, facts, completed, lines, shown)
    return _explain_unknown(completed, texts["cause"], title, lines, shown)


def find_rule(completed: Completed) -> Rule | None:
    """Return the row that explains a failed run, if any does."""
    found = _find_rule(_split_by_origin(_select_lines(completed)), completed.argv)
    return found[0] if found else None


def find_warnings(completed: Completed, *, subject: str = "") -> tuple[ApptainerError, ...]:
    """Return what went wrong in a run that succeeded: the engine goes on where it could not do quite what was asked.

    The errors are values here, to be shown and not raised.
    """
    lines = _select_lines(completed)
    texts = _split_by_origin(lines)
    facts = {"title": "run", "subject": subject or "it", "overlay": _find_overlay(completed.argv)}
    return tuple(
        _build_error(rule, match, facts, completed, lines, None)
        for rule in RULES
        if rule.is_warning and (match := rule.pattern.search(texts[rule.where]))
    )


def _select_lines(completed: Completed) -> list[str]:
    text = strip_ansi((completed.stdout + "\n" + completed.stderr)[-_SEARCHED_CHARACTERS:])
    return [line.rstrip() for line in text.splitlines() if line.strip() and not _NOISE.search(line)]


def _parse_line(line: str) -> tuple[str, str]:
    """Return level and message of a line of the engine; two empty strings for a line of anybody else."""
    match = _LEVEL.fullmatch(line[:9]) or _DEBUG_PREFIX.match(line)
    return (match[1], line[match.end() :]) if match else ("", "")


def _split_by_origin(lines: Sequence[str]) -> dict[Where, str]:
    """Sort the lines: the cause (errors of the engine and what follows them), its log (all levels), and everything."""
    cause: list[str] = []
    log: list[str] = []
    is_after_error = False
    for line in lines:
        level, _ = _parse_line(line)
        is_error = level in _CAUSE_LEVELS or bool(_CAUSE_LINE.match(line))
        # A message of several lines has its level on the first one only.
        is_after_error = is_error or (is_after_error and not level)
        if is_after_error:
            cause.append(line)
        if level:
            log.append(line)
    return {"cause": "\n".join(cause), "log": "\n".join(log), "anywhere": "\n".join(lines)}


def _find_rule(texts: Mapping[Where, str], argv: Sequence[str]) -> tuple[Rule, re.Match[str]] | None:
    for rule in RULES:
        match = rule.pattern.search(texts[rule.where])
        if match and _applies(rule, argv):
            return rule, match
    return None


def _applies(rule: Rule, argv: Sequence[str]) -> bool:
    return rule.only_with is None or any(
        word == rule.only_with or word.startswith(rule.only_with + "=") for word in argv
    )


def _find_overlay(argv: Sequence[str]) -> str:
    """Return the writable overlay on the command line; "FILE" where there is none, for use in advice."""
    for index, word in enumerate(argv[:-1]):
        if word == "--overlay" and not argv[index + 1].endswith(":ro"):
            return argv[index + 1].removesuffix(":rw")
    return "FILE"


def _build_error(
    rule: Rule,
    match: re.Match[str],
    facts: dict[str, str],
    completed: Completed,
    lines: Sequence[str],
    shown: str | None,
) -> ApptainerError:
    found = {name: value.strip() for name, value in match.groupdict().items() if value}
    words: dict[str, str] = defaultdict(lambda: facts["subject"], {**facts, **found})
    hint = rule.hint(words) if callable(rule.hint) else rule.hint and rule.hint.format_map(words)
    return rule.error(
        rule.message.format_map(words),
        hint=hint,
        command=shown,
        returncode=completed.returncode,
        log_tail=lines,
    )


def _explain_unknown(
    completed: Completed, cause: str, title: str, lines: Sequence[str], shown: str | None
) -> ApptainerError:
    first = cause.splitlines()[0] if cause else ""
    reason = (_parse_line(first)[1] or _CAUSE_LINE.sub("", first)).strip()
    error: type[CommandError] = CommandError
    if title.startswith("build") or "While performing build" in reason or "Unable to build" in reason:
        error = BuildError
    elif title.startswith(("pull", "push", "fetch", "log in")) or "registry" in reason:
        error = RegistryError
    return error(
        f"could not {title}: {reason or describe_status(completed.returncode)}",
        command=shown,
        returncode=completed.returncode,
        log_tail=lines,
    )


def describe_status(returncode: int) -> str:
    """Return an exit status in words."""
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return f"ended by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"ended by signal {-returncode}"


__all__ = ["RULES", "Rule", "describe_status", "diagnose", "find_rule", "find_warnings"]
