"""`jupyter apptainer kernel discover`: the kernels that an image brings along, of any language."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..config import ApptainerConfig, load_config
from ..engine.locate import get_engine
from ..engine.options import Bind, ContainerOptions
from ..errors import ApptainerError, SpecError
from ..images.kernelspecs import find_kernelspecs
from ..images.probe import PROBE_OPTIONS
from ..kernels.kernelspecs import iter_kernelspecs
from ..kernels.local_image import find_local_image
from ..kernels.prepare import check_request
from ..kernels.spec import ContainerSpec, parse_container_spec, resolve_paths
from ..kernels.templates import KernelTemplate, read_image_kernelspecs
from ..places import find_places
from .container_options import build_config
from .kernel_sources import make_source, print_remarks
from .kernel_write import write_kernel
from .output import make_printable, print_json, print_note, print_table


def discover_kernels(arguments: argparse.Namespace) -> int:
    """Print the kernels of an image, or make container kernels of them."""
    if arguments.command is not None:
        raise SpecError(
            "--command: each kernel of the image has its own", hint="use `kernel add NAME IMAGE --command …`"
        )
    config = build_config(arguments)
    spec = parse_container_spec(config, origin="the command line")
    places = find_places()
    resolved = find_local_image(resolve_paths(spec, os.getcwd(), os.environ), places)
    check_request(resolved, places)
    engine = get_engine(ApptainerConfig(config=load_config()).engine_path or None, places=places)
    with tempfile.TemporaryDirectory(prefix="jpa-") as folder:
        found = find_kernelspecs(engine, resolved.image, Path(folder), os.environ, options=_build_options(resolved))
        rows = _name_all(read_image_kernelspecs(found), resolved.image)
        if arguments.add is None:
            return _show(rows, arguments)
        return _add(_choose(rows, arguments.add, resolved.image), config, arguments)


def _build_options(spec: ContainerSpec) -> ContainerOptions:
    """Layers and binds may bring kernels, too."""
    overlays = tuple(overlay.path for overlay in spec.overlays if overlay.kind == "file")
    binds = tuple(Bind(bind.source, bind.destination or bind.source, "ro") for bind in spec.binds)
    return replace(PROBE_OPTIONS, overlays=overlays, binds=binds)


def _name_all(templates: Sequence[KernelTemplate], image: str) -> dict[str, KernelTemplate]:
    """Give each kernel a name of its own on this host: IMAGE-NAME, and the environment's where the image has two of a name."""
    stem = re.sub(r"\.(sif|simg|sqsh|img)$", "", os.path.basename(image.rstrip("/")))
    rows: dict[str, KernelTemplate] = {}
    for template in templates:
        environment = os.path.basename(template.source.partition("/share/jupyter/")[0])
        candidates = [f"{stem}-{template.name}", f"{stem}-{environment}-{template.name}"]
        candidates += [f"{stem}-{template.name}-{number}" for number in range(2, len(templates) + 2)]
        names = (re.sub(r"[^a-z0-9._-]+", "-", name.lower()) for name in candidates)
        rows[next(name for name in names if name not in rows)] = template
    return rows


def _choose(rows: dict[str, KernelTemplate], names: list[str], image: str) -> dict[str, KernelTemplate]:
    chosen: dict[str, KernelTemplate] = {}
    for name in names:
        matching = {known: row for known, row in rows.items() if name.lower() in (known, row.name.lower())}
        if not matching:
            there = ", ".join(row.name for row in rows.values())
            raise SpecError(f"there is no kernel {name} in the image {image}", hint=f"there are {there or 'none'}")
        chosen |= matching
    return chosen if names else rows


def _show(rows: dict[str, KernelTemplate], arguments: argparse.Namespace) -> int:
    known = {kernelspec.name for kernelspec in iter_kernelspecs()}
    if arguments.json:
        print_json([_describe(name, row, is_added=name in known) for name, row in rows.items()])
        return 0
    if not rows:
        print_note(
            f"There is no kernelspec in {arguments.image}. Where it has a Python, `jupyter apptainer kernel add NAME IMAGE` makes a kernel."
        )
        return 0
    table = []
    for name, row in rows.items():
        command = row.config.get("command")
        shown = shlex.join(command) if isinstance(command, list) else ""
        state = "added" if name in known else "broken" if row.remarks.has_errors else ""
        words = (name, row.name, row.language, row.display_name, state, shown)
        table.append(tuple(make_printable(word) for word in words))
    print_table(("NAME HERE", "IN THE IMAGE", "LANGUAGE", "DISPLAY NAME", "STATE", "COMMAND"), table)
    for row in rows.values():
        print_remarks(make_source(row))
    return 0


def _add(rows: dict[str, KernelTemplate], config: dict[str, object], arguments: argparse.Namespace) -> int:
    if not rows:
        raise SpecError(
            f"there is no kernelspec in {arguments.image}", hint="`kernel add NAME IMAGE` makes a kernel of its Python"
        )
    added: list[dict[str, object]] = []
    for name, template in rows.items():
        source = make_source(template)
        described = _describe(name, template, is_added=False)
        if not arguments.json:
            print_remarks(source)
        try:
            if source.remarks.has_errors:
                raise SpecError("; ".join(remark.text for remark in source.remarks if remark.level == "error"))
            folder = write_kernel(name, config, source, arguments)
            described |= {"is_added": True, "folder": str(folder)}
        except ApptainerError as error:
            described["error"] = error.to_json()
            print_note(f"{name}: not added: {error}")
        added.append(described)
    if arguments.json:
        print_json(added)
    else:
        for row in added:
            if row["is_added"]:
                print(row["folder"])
    return int(not all(row["is_added"] for row in added))


def _describe(name: str, template: KernelTemplate, *, is_added: bool) -> dict[str, object]:
    return {
        "name": name,
        "image_name": template.name,
        "image_folder": template.source,
        "display_name": template.display_name,
        "language": template.language,
        "config": template.config,
        "interrupt_mode": template.interrupt_mode,
        "has_logos": template.logos is not None,
        "remarks": [vars(remark) for remark in template.remarks],
        "is_added": is_added,
        "folder": None,
    }
