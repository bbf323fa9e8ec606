"""The last layer: what an image says about itself, as the engine writes it, with the recipe as it was written.

The engine adds it to a folder that is mounted over its own; what it takes from the definition for that is put right afterwards.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from ..recipes.definition import Definition, Section, Stage, apply_arguments, find_values
from ..sif import read_json, read_sif
from ..sif_write import Text

_INSPECTED = "inspect-metadata.json"
_BOOTSTRAP_LABEL = "org.label-schema.usage.singularity.deffile.bootstrap"
_LEFT_OUT = ("setup", "pre", "files", "post", "arguments")
_SECRET_HEADERS = ("mirrorurl", "updateurl")
_TEMPLATE = re.compile(r"{{(?=\s*\w+\s*}})")


def build_metadata_definition(stage: Stage, root: Path) -> str:
    """Return a definition with the sections that say something about the image. root: the folder to add it to."""
    headers = [
        f"{header.key}: {header.value}"
        for header in stage.headers
        if header.key not in ("bootstrap", "stage", *_SECRET_HEADERS)
    ]
    sections = [_render(section) for section in stage.sections if section.name not in _LEFT_OUT]
    text = "\n".join(sections)
    if _TEMPLATE.search(text):
        text = _TEMPLATE.sub("{{ TWO_BRACES }}", text) + "\n%arguments\n    TWO_BRACES={{\n"
    mount = f'%setup\n    mount --bind {shlex.quote(str(root))} "$APPTAINER_ROOTFS"\n'
    return "\n".join(["Bootstrap: scratch", *headers, "", mount, text])


def build_base_definition(stage: Stage, origin: str) -> str:
    """Return a definition that only begins as this stage does. origin: what `From:` shall say."""
    values = {header.key: header.value for header in stage.headers if header.key != "stage"}
    values |= {"from": origin} if origin else {}
    return "".join(f"{key}: {value}\n" for key, value in values.items())


def render_kept(definition: str, build_args: Mapping[str, str], parsed: Definition) -> str:
    """Return the text that the engine keeps of a definition: from its first header on, with the arguments of each stage replaced."""
    lines = definition.split("\n")
    starts = [stage.line - 1 for stage in parsed.stages]
    return "\n".join(
        apply_arguments("\n".join(lines[start:end]), find_values(parsed, build_args, stage))
        for stage, start, end in zip(parsed.stages, starts, [*starts[1:], None], strict=True)
    )


def clean_base(tree: Path) -> None:
    """Take from a first layer what the engine has noted down about making it: the last layer says that."""
    folder = tree / ".singularity.d"
    (folder / "Singularity").unlink(missing_ok=True)
    labels = folder / "labels.json"
    if labels.is_file():
        kept = {name: value for name, value in json.loads(labels.read_text()).items() if not _is_secret(name)}
        labels.write_text(json.dumps(kept, indent="\t", sort_keys=True), encoding="utf-8")


def settle_metadata(tree: Path, sif: Path, definition: str, agent: str) -> tuple[Text, Text]:
    """Put the recipe and its agent into the last layer, and return what the image's header shall hold.

    sif: the file without a file system that the engine has made with this layer.
    """
    folder = tree / ".singularity.d"
    found = read_sif(str(sif))
    inspected = next(each for each in found.find("json") if each.name == _INSPECTED)
    document = read_json(found, inspected)
    attributes = document["data"]["attributes"]
    labels = json.loads((folder / "labels.json").read_text(encoding="utf-8")) | {_BOOTSTRAP_LABEL: agent}
    attributes["labels"] = attributes.get("labels", {}) | {_BOOTSTRAP_LABEL: agent}
    attributes["deffile"] = definition.rstrip("\n")
    (folder / "labels.json").write_text(json.dumps(labels, indent="\t", sort_keys=True), encoding="utf-8")
    (folder / "Singularity").write_text(definition, encoding="utf-8")
    encoded = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    return Text("", definition.encode()), Text(_INSPECTED, encoded)


def _render(section: Section) -> str:
    return "\n".join([f"%{section.name} {section.argument}".rstrip(), *(line.text for line in section.lines)])


def _is_secret(label: str) -> bool:
    return label.endswith(tuple(f".{name}" for name in _SECRET_HEADERS))
