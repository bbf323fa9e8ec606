"""Words of ours: commands of `jupyter apptainer`, each as a process of its own, as a terminal would run it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence

from ..cli.main import COMMANDS
from ..engine.command import Command, Completed
from ..engine.runner import Runner
from ..errors import ApptainerError, CommandError, SpecError
from . import panel
from .context import build_terminal_environment
from .model import Answer, OnText, Request, Value
from .relay import OwnRelay

# Shorter words for what a cell asks often.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "images": ("image", "list"),
    "kernels": ("kernel", "ps"),
    "freeze": ("image", "freeze"),
    "lock": ("image", "lock"),
}
# Those that are no command line of ours.
WORDS: dict[str, str] = {
    "apps": "names of the apps in an image: `run --app NAME` runs one",
    "bind": "bind folders from the next start of this container kernel on",
    "help": "all words, or the page of one",
    panel.WORD: panel.HELP,
    "ps": "instances, and what runs in them",
    "restart": "start this container kernel anew, with another image, bind, overlay or GPU setting",
    "status": "what this kernel runs in, and the engine",
}
# Commands that answer a list or an object, and the columns of a table of it.
_TABLES: Mapping[tuple[str, ...], tuple[tuple[str, str], ...]] = {
    ("image", "list"): (
        ("path", "IMAGE"),
        ("size_mib", "SIZE MiB"),
        ("python", "PYTHON"),
        ("ipykernel", "IPYKERNEL"),
        ("kernels", "KERNELS"),
        ("origin", "ORIGIN"),
    ),
    ("kernel", "list"): (("name", "NAME"), ("display_name", "DISPLAY NAME"), ("image", "IMAGE"), ("is_ready", "READY")),
    ("kernel", "ps"): (
        ("kernel_id", "KERNEL"),
        ("state", "STATE"),
        ("memory_mib", "MEMORY MiB"),
        ("instance", "INSTANCE"),
        ("kernelspec", "KERNELSPEC"),
        ("label", "NOTEBOOK"),
    ),
    ("overlay", "list"): (),
    ("tasks", "list"): (),
    ("tasks",): (),
}
# An error is the last that a command of ours prints; argparse has its own form.
_ERROR = re.compile(
    r"^error: (?P<message>.*?)(?:\nHint: (?P<hint>.*?))?(?:\nLast lines:\n(?P<tail>.*))?\Z", re.M | re.S
)
_USAGE_ERROR = re.compile(r"^jupyter apptainer(?P<command>[\w ]*?): error: (?P<message>.*)\Z", re.M | re.S)
_MIB = 2**20
# A build that is interrupted stops its engine, which takes as long as the ladder may, and removes its folders.
_PATIENCE_S = 30.0


def find_own_command(words: Sequence[str]) -> tuple[str, ...] | None:
    """Return the command line of ours that the words mean; None where the first is no word of ours."""
    if not words:
        return None
    if words[0] in ALIASES and ALIASES[words[0]][0] in COMMANDS:
        return (*ALIASES[words[0]], *words[1:])
    return tuple(words) if words[0] in COMMANDS else None


def list_own_words() -> dict[str, str]:
    """Return the words of ours, and what they do."""
    aliases = {word: f"the same as {' '.join(line)}" for word, line in ALIASES.items() if line[0] in COMMANDS}
    return {name: row.help for name, row in COMMANDS.items()} | aliases | WORDS


def run_own(words: tuple[str, ...], request: Request, on_text: OnText, environ: Mapping[str, str]) -> Answer:
    """Run it to its end."""
    columns = next((_TABLES[words[:n]] for n in (2, 1) if words[:n] in _TABLES), None)
    is_plain = "--json" in words
    is_table = columns is not None and not is_plain and not {"-h", "--help"} & set(words)
    argv = (sys.executable, "-m", "jupyter_apptainer.cli.main", *words, *(("--json",) if is_table else ()))
    command: Command[Completed] = Command(
        argv=argv,
        env=build_terminal_environment(environ) | {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1"},
        parse=lambda completed: completed,
        title=f"jupyter apptainer {' '.join(words[:2])}",
        timeout_s=None,
        stdin=request.body,
        cwd=request.cwd,
        patience_s=_PATIENCE_S,
    )
    relay = OwnRelay(on_text)
    is_value = is_table or is_plain

    def pass_on(stream: str, text: str) -> None:
        if not (is_value and stream == "stdout"):
            relay.feed("stdout" if stream == "stdout" else "stderr", text)

    completed = Runner().complete(command, on_text=pass_on)
    if completed.returncode:
        return Answer(completed.returncode, completed.stdout, completed.stderr, None, read_error(completed, words))
    value = _build_value(completed.stdout, columns if is_table else None) if is_value else None
    return Answer(0, completed.stdout, completed.stderr, value)


def read_error(completed: Completed, words: Sequence[str]) -> ApptainerError:
    """Make an error again of what a command of ours printed about it."""
    text = completed.stderr.strip()
    refused = _USAGE_ERROR.search(text)
    if refused:
        return SpecError(
            f"`{' '.join(words)}`: {refused['message']}", hint=f"`%apptainer{refused['command']} --help` shows how"
        )
    found = _ERROR.search(text)
    if not found:
        shown = " ".join(words[:2])
        return CommandError(
            f"`{shown}` did not succeed: exit status {completed.returncode}", log_tail=text.splitlines()
        )
    kind = SpecError if completed.returncode == 2 else CommandError
    tail = [line.strip() for line in (found["tail"] or "").splitlines()]
    return kind(found["message"], hint=found["hint"] or "", returncode=completed.returncode, log_tail=tail)


def _build_value(text: str, columns: tuple[tuple[str, str], ...] | None) -> Value | None:
    try:
        data = json.loads(text)
    except ValueError:
        # A command that printed text after all.
        return None
    if columns is None:
        return Value("plain", data)
    if isinstance(data, list) and all(isinstance(row, dict) for row in data):
        rows = [_add_sizes(row) for row in data]
        return Value("table", rows, columns or _choose_columns(rows))
    return Value("record", data) if isinstance(data, dict) else Value("plain", data)


def _add_sizes(row: dict[str, object]) -> dict[str, object]:
    sizes = {
        f"{name.removesuffix('_bytes')}_mib": round(value / _MIB, 1)
        for name, value in row.items()
        if name.endswith("_bytes") and isinstance(value, int)
    }
    config = row.get("config")
    image = {"image": config["image"]} if isinstance(config, dict) and "image" in config and "image" not in row else {}
    return {**row, **sizes, **image}


def _choose_columns(rows: Sequence[Mapping[str, object]]) -> tuple[tuple[str, str], ...]:
    """Return the keys whose values fit into a cell of a table."""
    simple = [key for key in (rows[0] if rows else {}) if all(_is_simple(row.get(key)) for row in rows)]
    return tuple((key, key.replace("_", " ").upper()) for key in simple)


def _is_simple(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)
