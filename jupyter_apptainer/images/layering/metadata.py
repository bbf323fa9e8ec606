"""The last layer: what an image says about itself, as the engine writes it, with the recipe as it was written.

The engine adds it to a folder that is mounted over its own; what it takes from the definition for that is put right afterwards.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..recipes.definition import APP_SECTIONS, Definition, Section, Stage, apply_arguments, find_values
from ..reproducible import DATE_LABEL, format_build_date
from ..sif import read_json, read_sif
from ..sif_write import Text

_INSPECTED = "inspect-metadata.json"
_BOOTSTRAP_LABEL = "org.label-schema.usage.singularity.deffile.bootstrap"
_LEFT_OUT = ("setup", "pre", "files", "post", "arguments", *APP_SECTIONS)
_APP_EXPORTS = "94-appsbase.sh"
_SECRET_HEADERS = ("mirrorurl", "updateurl")
_TEMPLATE = re.compile(r"{{(?=\s*\w+\s*}})")


def build_metadata_definition(stage: Stage, root: Path) -> str:
    """Return a definition with the sections that say something about the image. root: the folder to add it to."""
    headers = [
        f"{header.key}: {header.value}"
        for header in stage.headers
        if header.key not in ("bootstrap", "stage", *_SECRET_HEADERS)
    ]
    return _build_definition(headers, "setup", root, [each for each in stage.sections if each.name not in _LEFT_OUT])


def build_apps_definition(sections: Sequence[Section], root: Path) -> str:
    """Return a definition with sections of apps, which the engine takes into account before any script but %pre."""
    return _build_definition([], "pre", root, sections)


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


def clean_apps(tree: Path) -> None:
    """Leave of the layer of apps what is theirs: the engine has made a base system beside them, which the layers below have."""
    for path in sorted(tree.rglob("*"), reverse=True):
        name = path.relative_to(tree).parts
        if name[0] == "scif" or name == (".singularity.d", "env", _APP_EXPORTS):
            continue
        if path.is_dir() and not path.is_symlink():
            # Where something is left in it.
            with suppress(OSError):
                path.rmdir()
        else:
            path.unlink()


def clean_base(tree: Path) -> None:
    """Take from a first layer what the engine has noted down about making it: the last layer says that."""
    folder = tree / ".singularity.d"
    (folder / "Singularity").unlink(missing_ok=True)
    labels = folder / "labels.json"
    if labels.is_file():
        kept = {name: value for name, value in json.loads(labels.read_text()).items() if not _is_secret(name)}
        labels.write_text(json.dumps(kept, indent="\t", sort_keys=True), encoding="utf-8")


def settle_metadata(tree: Path, sif: Path, definition: str, agent: str, epoch: int | None = None) -> tuple[Text, Text]:
    """Put the recipe and its agent into the last layer, and return what the image's header shall hold.

    sif: the file without a file system that the engine has made with this layer. epoch: when the image is said to have been built.
    """
    folder = tree / ".singularity.d"
    found = read_sif(str(sif))
    inspected = next(each for each in found.find("json") if each.name == _INSPECTED)
    document = read_json(found, inspected)
    attributes = document["data"]["attributes"]
    said = {_BOOTSTRAP_LABEL: agent} | ({DATE_LABEL: format_build_date(epoch)} if epoch is not None else {})
    labels = json.loads((folder / "labels.json").read_text(encoding="utf-8")) | said
    attributes["labels"] = attributes.get("labels", {}) | said
    attributes["deffile"] = definition.rstrip("\n")
    (folder / "labels.json").write_text(json.dumps(labels, indent="\t", sort_keys=True), encoding="utf-8")
    (folder / "Singularity").write_text(definition, encoding="utf-8")
    encoded = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    return Text("", definition.encode()), Text(_INSPECTED, encoded)


def _build_definition(headers: Sequence[str], script: str, root: Path, sections: Iterable[Section]) -> str:
    """script: the section that mounts `root` over the engine's own folder."""
    text = "\n".join(_render(section) for section in sections)
    if _TEMPLATE.search(text):
        text = _TEMPLATE.sub("{{ TWO_BRACES }}", text) + "\n%arguments\n    TWO_BRACES={{\n"
    mount = f'%{script}\n    mount --bind {shlex.quote(str(root))} "$APPTAINER_ROOTFS"\n'
    return "\n".join(["Bootstrap: scratch", *headers, "", mount, text])


def _render(section: Section) -> str:
    return "\n".join([f"%{section.name} {section.argument}".rstrip(), *(line.text for line in section.lines)])


def _is_secret(label: str) -> bool:
    return label.endswith(tuple(f".{name}" for name in _SECRET_HEADERS))
