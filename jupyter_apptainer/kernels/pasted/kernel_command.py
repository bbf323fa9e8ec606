"""From the program that a pasted command runs to the command of a kernel.

A command that starts a kernel stays; one that runs a script or a shell is replaced by ipykernel, and that is said.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ...images.probe import is_python_command
from ..fields import PLACEHOLDER
from ..remarks import Remarks
from ..spec import PYTHON_COMMAND
from .words import Word

_KERNEL = re.compile(r"ipykernel|IRkernel|IJulia|bash_kernel|xeus|xpython|[a-z]_?kernel\b", re.IGNORECASE)
_LANGUAGES = {"ipykernel": "python", "irkernel": "R", "ijulia": "julia", "bash_kernel": "bash"}
_OTHERS = {
    "r": "R",
    "rscript": "R",
    "julia": "Julia",
    "octave": "Octave",
    "sas": "SAS",
    "matlab": "MATLAB",
    "stata": "Stata",
}
_CONNECTION = re.compile(r"\$\{?[1@*]\}?$|.*kernel-[\w-]+\.json$")
# Programs whose argument is a further program line, for Python.
_PYTHON_STARTERS = frozenset(
    {"uv", "poetry", "pipenv", "accelerate", "torchrun", "deepspeed", "ipython", "pytest", "papermill"}
)
_SHELLS = frozenset({"sh", "bash", "dash", "zsh"})


@dataclass(frozen=True)
class KernelCommand:
    """command: None for the default one."""

    command: tuple[str, ...] | None = None
    language: str | None = None


def build_kernel_command(words: Sequence[Word], remarks: Remarks) -> KernelCommand:
    """Return the kernel for a command line in the container; note what became of it."""
    if not words:
        remarks.note("the line names no program: the kernel is the image's Python with ipykernel")
        return KernelCommand()
    line = words[0].line
    texts = [word.text for word in words]
    program = os.path.basename(texts[0])
    whole = " ".join(texts)
    if _KERNEL.search(whole):
        found = _KERNEL.search(whole)
        language = _LANGUAGES.get(found[0].lower()) if found else None
        return KernelCommand(_insert_placeholder(texts), language)
    if program in ("jupyter", "jupyter-lab", "jupyter-notebook"):
        remarks.note(
            "a Jupyter server in the image is not needed: the kernel takes its place, for the Jupyter that you have",
            line=line,
        )
        return KernelCommand()
    if is_python_command(texts):
        remarks.note(f"{_shorten(whole)}: a notebook takes its place; `%run` runs a script in it", line=line)
        own = (texts[0], *PYTHON_COMMAND[1:])
        return KernelCommand(None if own == PYTHON_COMMAND else own)
    if program.lower() in _OTHERS:
        remarks.error(
            f"{program} is no kernel for notebooks, and the default one is for Python",
            f"`jupyter apptainer kernel discover IMAGE` finds a kernel for {_OTHERS[program.lower()]} in the image; or name it with --command",
            line,
            about="command",
        )
    elif program in _SHELLS and len(texts) > 1:
        remarks.error(
            f"{_shorten(whole)}: what the shell sets up is not carried over",
            "name the program of the kernel, `--command '/opt/conda/envs/NAME/bin/python -m ipykernel_launcher -f {connection_file}'`",
            line,
            about="command",
        )
    elif program in _SHELLS or program in _PYTHON_STARTERS:
        remarks.note(f"{_shorten(whole)}: a notebook with the image's Python takes its place", line=line)
    else:
        remarks.warn(
            f"{_shorten(whole)} is no kernel: a notebook with the image's Python takes its place",
            f"`!{program}` starts it from there; another kernel is named with --command",
            line,
        )
    return KernelCommand()


def _insert_placeholder(texts: Sequence[str]) -> tuple[str, ...]:
    """Put the placeholder where a connection file is named, or add it."""
    if any(PLACEHOLDER in text for text in texts):
        return tuple(texts)
    is_r = any("IRkernel" in text for text in texts)
    if os.path.basename(texts[0]) in _SHELLS:
        # The kernel's command line is one word, as in `bash -c`.
        return tuple(_insert_in_line(text, is_r=is_r) if _KERNEL.search(text) else text for text in texts)
    command: list[str] = []
    for text in texts:
        # A script that is itself the kernelspec's program: Jupyter gives it all these arguments.
        command += ["-f"] if text in ("$@", "$*") and not is_r and command[-1] != "-f" else []
        is_connection = _CONNECTION.match(text) or (command and command[-1] == "-f")
        command.append(PLACEHOLDER if is_connection else re.sub(r"^(-f|--f)=.*", f"-f={PLACEHOLDER}", text))
    if not any(PLACEHOLDER in text for text in command):
        flag = "--args" if is_r else "-f"
        command += [PLACEHOLDER] if command[-1] == flag else [flag, PLACEHOLDER]
    return tuple(command)


def _insert_in_line(text: str, *, is_r: bool) -> str:
    filled, count = re.subn(r"(-f[ =]|--args )\S+", rf"\g<1>{PLACEHOLDER}", text)
    return filled if count else f"{text} {'--args' if is_r else '-f'} {PLACEHOLDER}"


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
