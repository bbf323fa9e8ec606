"""Where `kernel add` can take a kernel from besides an image: another kernelspec, a pasted command, a batch script."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..config import ApptainerConfig, load_config
from ..engine.environment import build_engine_environment
from ..engine.flags import build_help
from ..engine.locate import get_engine
from ..engine.runner import Runner
from ..errors import SpecError
from ..kernels.kernelspecs import PROVISIONER, get_kernelspec
from ..kernels.pasted.convert import FlagTables, read_batch_script, read_command
from ..kernels.remarks import Remark, Remarks
from ..kernels.spec import to_config
from ..kernels.templates import KernelTemplate, find_engine_line, load_installed, read_installed
from ..places import find_places
from .output import RED, YELLOW, make_printable, paint

_COLOURS = {"error": RED, "warning": YELLOW}


@dataclass(frozen=True)
class Source:
    """What is known of a kernel before the options of the command line are added. origin: for messages."""

    origin: str = ""
    config: Mapping[str, object] = field(default_factory=dict)
    display_name: str | None = None
    language: str | None = None
    interrupt_mode: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    logos: Path | None = None
    remarks: Remarks = field(default_factory=Remarks)


def load_source(arguments: argparse.Namespace, given: frozenset[str]) -> Source:
    """Read what was named. given: fields of the configuration that the command line sets itself."""
    if arguments.like is not None:
        source = _load_like(arguments.like)
    elif arguments.from_command is not None:
        text = sys.stdin.read() if arguments.from_command == "-" else arguments.from_command
        source = _read_pasted(text, "the pasted command", is_script=False)
    elif arguments.from_script is not None:
        source = _read_pasted(_read_text(arguments.from_script), arguments.from_script, is_script=True)
    else:
        return Source()
    return Source(**{**vars(source), "remarks": source.remarks.without(given)})


def make_source(template: KernelTemplate) -> Source:
    """Return a kernelspec that was found as a source."""
    return Source(
        origin=template.source,
        config=template.config,
        display_name=template.display_name,
        language=template.language,
        interrupt_mode=template.interrupt_mode,
        metadata=template.metadata,
        logos=template.logos,
        remarks=template.remarks,
    )


def print_remarks(source: Source) -> None:
    """Tell a person, on standard error: where, how bad, what, and the way out."""
    for remark in source.remarks:
        print(_format(source.origin, remark), file=sys.stderr)


def count_errors(source: Source) -> str:
    """Return "1 mistake" or "3 mistakes"."""
    number = sum(remark.level == "error" for remark in source.remarks)
    return f"{number} mistake{'s' if number != 1 else ''}"


def _format(origin: str, remark: Remark) -> str:
    place = f"{origin}:{remark.line}" if remark.line else origin
    level = paint(remark.level, _COLOURS[remark.level]) if remark.level in _COLOURS else remark.level
    text = f"{place}: {level}: {make_printable(remark.text)}"
    return text + (f"\n    → {make_printable(remark.hint)}" if remark.hint else "")


def _load_like(name: str) -> Source:
    folder, document = load_installed(name)
    provisioner = (document.get("metadata") or {}).get("kernel_provisioner") or {}
    if provisioner.get("provisioner_name") == PROVISIONER:
        found = get_kernelspec(name)
        metadata = {key: value for key, value in document["metadata"].items() if key != "kernel_provisioner"}
        return Source(
            origin=f"the kernel {name}",
            config=to_config(found.resolve(os.environ)),
            language=found.language,
            interrupt_mode=document.get("interrupt_mode"),
            metadata=metadata,
            logos=folder,
        )
    line = find_engine_line(document)
    if line is None:
        return make_source(read_installed(name, folder, document))
    # A kernelspec whose program is the engine itself, as many recipes have it.
    pasted = _read_pasted(line, f"the kernel {name}", is_script=False)
    return Source(**{**vars(pasted), "language": str(document.get("language") or "") or pasted.language})


def _read_pasted(text: str, origin: str, *, is_script: bool) -> Source:
    read = read_batch_script if is_script else read_command
    pasted = read(text, _load_flag_tables(), os.environ, os.getcwd())
    return Source(origin=origin, config=pasted.config, language=pasted.language, remarks=pasted.remarks)


def _read_text(path: str) -> str:
    content = Path(path).read_bytes()
    if b"\0" in content[:4096]:
        raise SpecError(f"{path} is not a text", hint="name a script, or use `kernel add NAME IMAGE` for an image")
    return content.decode("utf-8", "replace")


def _load_flag_tables() -> FlagTables:
    engine = get_engine(ApptainerConfig(config=load_config()).engine_path or None, places=find_places())
    env = build_engine_environment(os.environ)
    exec_, run, shell, start = (
        Runner().run(build_help(engine, words, env))
        for words in (("exec",), ("run",), ("shell",), ("instance", "start"))
    )
    return FlagTables(exec_, run, shell, start)
