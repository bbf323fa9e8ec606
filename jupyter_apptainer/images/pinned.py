"""Bases that a lock has pinned: written into a definition for a build, and taken out of what it leaves.

So an image that is built again says about its origin what the first one said, and can be the same file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from .recipes.definition import Stage
from .recipes.recipe import PinnedBase

_FROM_LABEL = "org.label-schema.usage.singularity.deffile.from"
_HEAD = re.compile(r"\s*from\s*:\s*", re.IGNORECASE)


def pin_stage(definition: str, stage: Stage, value: str) -> tuple[str, PinnedBase]:
    """Return the definition in which a stage begins with `value`, and what was there."""
    origin = stage.get_header("from")
    assert origin is not None
    lines = definition.split("\n")
    written = lines[origin.line - 1]
    lines[origin.line - 1] = f"From: {value}"
    return "\n".join(lines), PinnedBase(lines[origin.line - 1], written, value, origin.value)


def restore_text(definition: str, pinned: Iterable[PinnedBase]) -> str:
    """Return a definition as it was written."""
    written = {each.line: each.written for each in pinned}
    return "\n".join(written.get(line, line) for line in definition.split("\n"))


def restore_folder(folder: Path, pinned: Iterable[PinnedBase]) -> None:
    """Put back what was written into the definition and the labels of an unpacked image, where arguments are replaced already."""
    bases = list(pinned)
    if not bases:
        return
    definition, labels = folder / ".singularity.d/Singularity", folder / ".singularity.d/labels.json"
    lines = {each.line: _fill(each) for each in bases}
    text = definition.read_text(encoding="utf-8")
    definition.write_text("\n".join(lines.get(line, line) for line in text.split("\n")), encoding="utf-8")
    found = json.loads(labels.read_text(encoding="utf-8"))
    originals = {each.value: each.original for each in bases}
    if found.get(_FROM_LABEL) in originals:
        found[_FROM_LABEL] = originals[found[_FROM_LABEL]]
        labels.write_text(json.dumps(found, indent="\t", sort_keys=True), encoding="utf-8")


def _fill(base: PinnedBase) -> str:
    head = _HEAD.match(base.written)
    return (head[0] if head else "From: ") + base.original
