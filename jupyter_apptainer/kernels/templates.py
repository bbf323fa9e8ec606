"""A kernel as somebody else's kernel.json describes it, turned into what a container kernel needs.

Two sources: kernelspecs inside an image (`read_image_kernelspec`), where paths are the image's own, and kernelspecs installed on
this host (`load_installed`), where they are not.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager

from ..errors import SpecError
from ..images.kernelspecs import ImageKernelspec
from ..images.probe import is_python_command
from .fields import NAME_PATTERN, PLACEHOLDER, join_words
from .kernelspecs import PROVISIONER
from .remarks import Remarks

_ENGINES = ("apptainer", "singularity")
# Of the host's own layout; in an image they would hide what is there.
_HOST_VARIABLES = frozenset(
    {
        "PATH",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "PYTHONPATH",
        "PYTHONHOME",
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "R_HOME",
        "R_LIBS",
    }
)
_RESOURCES = "{resource_dir}"
_TEMPLATE = re.compile(r"\$(\w+|\{\w+\})")


@dataclass(frozen=True)
class KernelTemplate:
    """What a kernelspec says, as far as it can be said of a container.

    name: the kernelspec's own. config: fields of a container's configuration, mostly command and env. metadata: without the
    provisioner. logos: a folder with logo-*, None where there are none. source: where it was found.
    """

    name: str
    display_name: str
    language: str
    config: Mapping[str, object]
    interrupt_mode: str
    metadata: Mapping[str, object]
    logos: Path | None
    source: str
    remarks: Remarks = field(default_factory=Remarks)


def read_image_kernelspecs(found: Iterable[ImageKernelspec]) -> tuple[KernelTemplate, ...]:
    """Return a template for each kernelspec that an image has; the same kernel found twice is one."""
    templates: list[KernelTemplate] = []
    for kernelspec in found:
        template = _read_image_kernelspec(kernelspec)
        is_known = any(
            known.config == template.config and (known.name, known.language) == (template.name, template.language)
            for known in templates
        )
        if not is_known:
            templates.append(template)
    return tuple(templates)


def _read_image_kernelspec(found: ImageKernelspec) -> KernelTemplate:
    remarks = Remarks()
    document = found.document
    if document is None:
        remarks.error(f"{found.folder}/kernel.json is not a JSON object", "correct it in the image's recipe")
        document = {}
    name = os.path.basename(found.folder)
    if name == "kernelspec":
        # The folder of a package that nobody has registered, as in IRkernel/kernelspec.
        name = {"IRkernel": "ir"}.get(os.path.basename(os.path.dirname(found.folder)), name)
    argv = _read_argv(document, remarks)
    command = [word.replace(_RESOURCES, found.folder) for word in argv]
    if command and re.fullmatch(r"python[\d.]*", command[0]) and found.python:
        # Jupyter would take its own Python there, which is the one of the same environment.
        command[0] = found.python
    return _build(name, document, command, found.copy, found.folder, remarks)


def load_installed(name: str) -> tuple[Path, dict[str, Any]]:
    """Return the folder and the kernel.json of an installed kernelspec. Raises SpecError where there is none."""
    manager = KernelSpecManager()
    folders = manager.find_kernel_specs()
    if name.lower() not in folders:
        raise SpecError(
            f"there is no kernel {name} on this host", hint=f"there are {', '.join(sorted(folders)) or 'none'}"
        )
    folder = Path(folders[name.lower()])
    try:
        document = json.loads((folder / "kernel.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        # The kernel of Jupyter's own Python, which needs no kernel.json.
        document = manager.get_kernel_spec(name).to_dict()
    except (OSError, ValueError) as error:
        raise SpecError(
            f"the kernel {name} cannot be read: {error}", hint="`jupyter kernelspec list` shows its folder"
        ) from None
    return folder, document


def find_engine_line(document: Mapping[str, Any]) -> str | None:
    """Return the command line of a kernelspec that starts a container itself, None for any other."""
    argv = [str(word) for word in document.get("argv") or ()]
    if any(os.path.basename(word) in _ENGINES for word in argv):
        return shlex.join(argv)
    return None


def read_installed(name: str, folder: Path, document: Mapping[str, Any]) -> KernelTemplate:
    """Return the template of an installed kernelspec; what belongs to this host is left out or bound, and said."""
    remarks = Remarks()
    command = _read_argv(document, remarks)
    config: dict[str, object] = {}
    if command and os.path.isabs(command[0]):
        program = os.path.basename(command[0])
        remarks.note(f"{command[0]} is a path of this host: the image's own {program} is started")
        command[0] = program
    if any(_RESOURCES in word for word in command):
        remarks.note(f"the command uses files in {folder}: they are bound, read-only")
        config["binds"] = [join_words(str(folder), str(folder), "ro")]
        command = [word.replace(_RESOURCES, str(folder)) for word in command]
    for word in command[1:]:
        path = word.partition("=")[2] if word.startswith("-") else word
        if os.path.isabs(path) and os.path.exists(path) and not path.startswith(str(folder)):
            remarks.error(
                f"the command names {path}, a path of this host",
                f"bind it, `-B {path}`, or give another --command",
                about="command",
            )
    template = _build(name, document, command, folder, str(folder), remarks, is_host=True)
    provisioner = (document.get("metadata") or {}).get("kernel_provisioner", {}).get("provisioner_name")
    if provisioner and provisioner != PROVISIONER:
        remarks.note(f"the provisioner {provisioner} is left out: the kernel runs in a container of this host")
    return KernelTemplate(**{**vars(template), "config": {**config, **template.config}})


def _read_argv(document: Mapping[str, Any], remarks: Remarks) -> list[str]:
    argv = document.get("argv")
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
        remarks.error("the kernel.json has no argv, a list of words", "correct it")
        return []
    if not any(PLACEHOLDER in word for word in argv):
        remarks.error(f"no word of the kernel.json's argv contains {PLACEHOLDER}", "correct it")
    return list(argv)


def _build(
    name: str,
    document: Mapping[str, Any],
    command: Sequence[str],
    logos: Path,
    source: str,
    remarks: Remarks,
    *,
    is_host: bool = False,
) -> KernelTemplate:
    config: dict[str, object] = {"command": list(command)} if command else {}
    env = _read_env(document.get("env"), remarks, is_host=is_host)
    if env:
        config["env"] = env
    metadata = document.get("metadata")
    kept = (
        {key: value for key, value in metadata.items() if key != "kernel_provisioner"}
        if isinstance(metadata, dict)
        else {}
    )
    is_message = document.get("interrupt_mode") == "message" or (bool(command) and is_python_command(command))
    return KernelTemplate(
        name=name,
        display_name=str(document.get("display_name") or name),
        language=str(document.get("language") or ""),
        config=config,
        interrupt_mode="message" if is_message else "signal",
        metadata=kept,
        logos=logos if any(logos.glob("logo-*")) else None,
        source=source,
        remarks=remarks,
    )


def _read_env(env: object, remarks: Remarks, *, is_host: bool) -> dict[str, str]:
    kept: dict[str, str] = {}
    for name, value in env.items() if isinstance(env, dict) else ():
        if not re.fullmatch(NAME_PATTERN, str(name)) or not isinstance(value, str):
            remarks.note(f"the variable {name} is left out: it is no text")
        elif is_host and name in _HOST_VARIABLES:
            remarks.note(f"the variable {name} is left out: it describes this host")
        elif _TEMPLATE.search(value):
            # Jupyter fills in the server's variables; a container kernel has a clean environment.
            remarks.note(
                f"the variable {name} is left out: its value {value} is made of others", f"set it: --env {name}=VALUE"
            )
        else:
            kept[name] = value
    return kept
