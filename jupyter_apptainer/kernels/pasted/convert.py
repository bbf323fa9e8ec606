"""A pasted command or a batch script, read as a kernel: `read_command` and `read_batch_script`.

Pure but for looking whether files exist. What the engine knows comes in as `FlagTables`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ...engine.flags import Flag, FlagTable
from ...errors import ApptainerError, SpecError
from ...images.identity import check_image
from ..environment import NEVER, RESERVED
from ..fields import is_uri
from ..remarks import Remarks
from .container_flags import FlagReader, looks_like_image
from .kernel_command import build_kernel_command
from .reading import Reading
from .script import EngineCommand, Script, read_script
from .words import Word

_INSTANCE = "instance://"
_SUBCOMMANDS = ("exec", "run", "shell")
# Near to those, and something else.
_OTHER_SUBCOMMANDS = frozenset({"run-help"})
_LAUNCHERS = frozenset({"srun", "mpirun", "mpiexec", "salloc", "sbatch"})
_KERNEL = re.compile(r"kernel", re.IGNORECASE)
# Of the host, and without meaning in an image.
_HOST_ONLY = frozenset(
    {"PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "PWD", "SHELL", "VIRTUAL_ENV", "CONDA_PREFIX"}
)
_TWIN = re.compile(r"(APPTAINER|SINGULARITY)(ENV)?_(\w+)")
_GLOBAL_WITH_VALUE = frozenset({"-c", "--config"})
_BIND_ONLY = FlagTable([Flag("bind", "B", True)])


@dataclass(frozen=True)
class FlagTables:
    """The flags of the engine on this machine, as its help has them."""

    exec: FlagTable
    run: FlagTable
    shell: FlagTable
    start: FlagTable

    def get(self, subcommand: str) -> FlagTable:
        """Return those of a subcommand."""
        tables = {"exec": self.exec, "run": self.run, "shell": self.shell}
        return tables.get(subcommand, self.start)


@dataclass(frozen=True)
class PastedKernel:
    """What a kernel would be. config: as in kernel.json, not checked yet. language: None where nothing tells it."""

    config: Mapping[str, object]
    language: str | None
    remarks: Remarks


def read_command(text: str, tables: FlagTables, environ: Mapping[str, str], cwd: str) -> PastedKernel:
    """Read a pasted line, or several. Raises SpecError where there is no engine command in it."""
    return _read(text, tables, environ, cwd, is_script=False)


def read_batch_script(text: str, tables: FlagTables, environ: Mapping[str, str], cwd: str) -> PastedKernel:
    """Read a script. Raises SpecError where there is no engine command in it."""
    return _read(text, tables, environ, cwd, is_script=True)


def _read(text: str, tables: FlagTables, environ: Mapping[str, str], cwd: str, *, is_script: bool) -> PastedKernel:
    remarks = Remarks()
    script = read_script(text, environ, cwd, remarks, is_script=is_script)
    chosen, started = _choose_commands(script, remarks)
    command = chosen.command
    reading = Reading(
        environ,
        script.unset,
        {name for name, value in command.exported.items() if not value.unknown},
        command.cwd,
        remarks,
    )
    _check_surroundings(command, script, remarks)
    if started:
        _read_container(started, tables, reading)
    kernel_words = _read_container(chosen, tables, reading, is_joining=started is not None)
    kernel = build_kernel_command(kernel_words if chosen.subcommand == "exec" else (), remarks)
    if kernel.command:
        for word in kernel_words:
            if word.text in kernel.command:
                reading.explain_unknown(word, about="command")
        reading.config["command"] = list(kernel.command)
    _take_variables(command, reading)
    return PastedKernel(reading.config, kernel.language, Remarks(remarks.in_order()))


# --- which command


class _Container(NamedTuple):
    """A command that runs a container: its subcommand, the word that says so, and the words behind that."""

    command: EngineCommand
    subcommand: str
    written: Word
    words: list[Word]

    def find_instance(self) -> str | None:
        """Return the name of the instance that it joins, None where it runs an image."""
        names = (word.text for word in self.words if word.text.startswith(_INSTANCE))
        return next((name.removeprefix(_INSTANCE) for name in names), None)


def _choose_commands(script: Script, remarks: Remarks) -> tuple[_Container, _Container | None]:
    """Return the command that a kernel can be made of: the one that starts a kernel, else the first.

    Where that one joins an instance, the command that starts the instance comes second.
    """
    found = [container for command in script.commands if (container := _find_container(command))]
    if not found:
        names = ", ".join(f"{c.program} {c.words[0].text}" for c in script.commands)
        raise SpecError(
            f"no engine command that runs something: {names}"
            if names
            else "there is no apptainer or singularity command in it",
            hint="paste a line with `apptainer exec`, `run`, `shell` or `instance start`, its image included",
        )
    chosen = next((row for row in found if any(_KERNEL.search(word.text) for word in row.words)), None)
    chosen = chosen or next((row for row in found if row.find_instance()), found[0])
    instance = chosen.find_instance()
    starts = (row for row in found if row.subcommand == "instance" and instance in [word.text for word in row.words])
    started = next(starts, None)
    for other in found:
        if other not in (chosen, started):
            text = f"{other.command.program} {other.subcommand} is left out: the kernel is made of line {chosen.command.line}"
            remarks.note(text, line=other.command.line)
    if chosen.written.text != chosen.subcommand:
        remarks.error(
            f"there is no command {chosen.command.program} {chosen.written.text}",
            f"did you mean {chosen.subcommand}?",
            chosen.written.line,
        )
    return chosen, started


def _find_container(command: EngineCommand) -> _Container | None:
    """Read flags and subcommand; None for one that a kernel cannot be made of."""
    words = list(command.words)
    while words and words[0].text.startswith("-"):
        is_paired = words.pop(0).text in _GLOBAL_WITH_VALUE
        if is_paired and words:
            words.pop(0)
    if not words:
        return None
    written = words.pop(0)
    if written.text == "instance":
        is_start = bool(words) and words[0].text in ("start", "run")
        return _Container(command, "instance", written, words[1:]) if is_start else None
    near = difflib.get_close_matches(written.text, _SUBCOMMANDS, n=1, cutoff=0.7)
    if not near or written.text in _OTHER_SUBCOMMANDS:
        return None
    return _Container(command, near[0], written, words)


def _check_surroundings(command: EngineCommand, script: Script, remarks: Remarks) -> None:
    wrappers = [os.path.basename(word.text) for word in command.wrappers]
    if command.program == "singularity":
        remarks.warn(
            "the engine is called apptainer today: singularity is an alias, where it exists at all",
            "write apptainer",
            command.line,
        )
    if "sudo" in wrappers:
        remarks.warn(
            "sudo is not needed: containers run without root, and files would belong to root",
            "leave it out",
            command.line,
        )
    launcher = next((name for name in wrappers if name in _LAUNCHERS), None)
    if launcher:
        remarks.note(f"{launcher} and its options are left out: the kernel runs where Jupyter runs", line=command.line)
    if script.has_job_options:
        remarks.note("the job's options (#SBATCH and the like) are left out: the kernel runs where Jupyter runs")


# --- the container


def _read_container(
    container: _Container, tables: FlagTables, reading: Reading, *, is_joining: bool = False
) -> list[Word]:
    """Read flags and image; return the words of the command in the container. is_joining: the image is known already."""
    command, subcommand, _, words = container
    rest = FlagReader(words, tables.get(subcommand), tables.start, reading).read()
    if not rest:
        reading.remarks.error(
            "the command names no image", "add the path of a .sif file behind the flags", command.line, about="image"
        )
        return []
    if is_joining and rest[0].text.startswith(_INSTANCE):
        return rest[1:]
    if rest[0].unknown or looks_like_image(rest[0].text, command.cwd):
        image, *rest = rest
    else:
        image = _find_image(rest, reading)
        rest = rest[rest.index(image) + 1 :]
    _take_image(image, reading)
    if subcommand == "instance":
        return rest[1:]
    if rest and subcommand == "exec" and rest[0].text.startswith("-") and len(rest[0].text) > 1:
        reading.remarks.error(
            f"{rest[0].text} stands behind the image, where it is the program to run",
            "move flags in front of the image",
            rest[0].line,
        )
        rest = FlagReader(rest, tables.get(subcommand), tables.start, reading).read()
    return rest


def _find_image(words: list[Word], reading: Reading) -> Word:
    """Return the word that is the image, where the first one does not look like it."""
    for word in words[1:]:
        if re.search(r"\.(sif|simg)$", word.text) or word.text.startswith(("docker://", "oras://", "library://")):
            reading.remarks.error(
                f"{words[0].text} stands where the image is expected",
                f"is {word.text} the image? Check the word before it",
                words[0].line,
            )
            return word
    return words[0]


def _take_image(image: Word, reading: Reading) -> None:
    path = reading.make_path(image.text, image)
    if image.text.startswith(_INSTANCE):
        reading.remarks.error(
            f"{image.text} is a running instance, and not an image",
            "name the image that it was started from",
            image.line,
            about="image",
        )
        return
    reading.config["image"] = path
    if reading.explain_unknown(image, about="image"):
        return
    if is_uri(path):
        file = re.sub(r"[^\w.-]+", "_", path.rpartition("/")[2].partition("@")[0]) + ".sif"
        reading.remarks.error(
            f"{path} is not on this machine, and a kernel's start does not wait for a download",
            f"fetch it once, `apptainer pull {file} {path}`, and name the file",
            image.line,
            about="image",
        )
        return
    try:
        check_image(path.replace("$$", "$"))
    except ApptainerError as error:
        reading.remarks.error(error.message, error.hint or "", image.line, about="image")


def _take_variables(command: EngineCommand, reading: Reading) -> None:
    """Variables that the script exported are in the container too, unless the command keeps them out."""
    is_clean = any(word.text in ("--cleanenv", "-e", "--containall", "-C", "--compat") for word in command.words)
    given = reading.config.get("env", {})
    assert isinstance(given, dict)
    for name, value in command.exported.items():
        twin = _TWIN.fullmatch(name)
        if twin:
            _take_twin(twin, value, reading)
        elif is_clean or name in given or name in _HOST_ONLY or name in (*NEVER, *RESERVED):
            continue
        elif value.text == f"${{{name}}}":
            reading.append("inherit_env", name)
        elif value.unknown:
            text, hint = reading.describe_unknown(value.unknown[0])
            reading.remarks.warn(f"the exported variable {name} is left out: {text}", hint, value.line)
        else:
            reading.set_env(name, value.text)


def _take_twin(twin: re.Match[str], value: Word, reading: Reading) -> None:
    """`APPTAINERENV_NAME` is a variable of the container, `APPTAINER_BIND` the same as the flag."""
    prefix, is_env, name = twin.groups()
    if prefix == "SINGULARITY":
        reading.remarks.warn(
            f"{twin[0]} is the old name of APPTAINER{is_env or ''}_{name}", "write the new one", value.line
        )
    if reading.explain_unknown(value):
        return
    if is_env:
        reading.set_env(name, value.text)
    elif name in ("BIND", "BINDPATH"):
        flag = Word(f"--bind={value.text}", value.line)
        FlagReader([flag], _BIND_ONLY, _BIND_ONLY, reading).read()
    elif name in ("NV", "ROCM"):
        reading.config[name.lower()] = True
    else:
        reading.remarks.warn(f"{twin[0]} has no effect on a kernel", "use the flag of that name", value.line)
