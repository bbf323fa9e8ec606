"""What a kernel wants: the `config` of a kernel.json, checked once.

Nothing below sees raw configuration: `parse_container_spec` names each wrong field, its value and what was expected.
`fields` holds the grammar of each field; `resolve_paths` turns what the author wrote into paths of this machine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any, Literal

from .expand import resolve_path
from .fields import FIELDS, UNBUILT, Problems, is_uri, split_digest
from .wishes import UNLIMITED, BindWish, OverlayWish, ResourcesWish

Nv = Literal["auto", True, False]
Isolation = Literal["default", "contain", "containall"]
Network = Literal["host", "none"]
Bridge = Literal["off", "read", "full"]

PYTHON_COMMAND = ("python", "-m", "ipykernel_launcher", "-f", "{connection_file}")

__all__ = [
    "PYTHON_COMMAND",
    "BindWish",
    "Bridge",
    "ContainerSpec",
    "Isolation",
    "Network",
    "Nv",
    "OverlayWish",
    "ResourcesWish",
    "build_json_schema",
    "is_uri",
    "parse_container_spec",
    "resolve_paths",
    "to_config",
]


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """One kernel's container, wanted. Field names are those of kernel.json, but for `digest`: the SHA-256 that the image's file
    must have, which kernel.json says in `image`."""

    image: str
    digest: str | None = None
    nv: Nv = "auto"
    rocm: bool = False
    binds: tuple[BindWish, ...] = ()
    overlays: tuple[OverlayWish, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    inherit_env: tuple[str, ...] = ()
    home: str = "host"
    isolation: Isolation = "default"
    command: tuple[str, ...] = PYTHON_COMMAND
    resources: ResourcesWish = UNLIMITED
    network: Network = "host"
    instance: str = "kernel"
    persist: bool | int = False
    preload: tuple[str, ...] = ()
    bridge: Bridge = "read"
    extra_flags: tuple[str, ...] = ()


# What kernels that share an instance may have each for itself.
OWN_FIELDS = frozenset({"env", "inherit_env", "command", "persist", "instance"})


def find_shared_name(spec: ContainerSpec) -> str:
    """Return NAME of `shared:NAME`; empty for an instance of the kernel's own."""
    return spec.instance.removeprefix("shared:") if spec.instance != "kernel" else ""


def build_wish(spec: ContainerSpec) -> dict[str, str]:
    """Return what an instance was started with, field by field as JSON, to compare it with the wish of another kernel."""
    wish = {name: json.dumps(value) for name, value in to_config(spec).items() if name not in OWN_FIELDS}
    return wish if find_shared_name(spec) else {}


def parse_container_spec(config: Mapping[str, object], *, origin: str = "the kernel's configuration") -> ContainerSpec:
    """Check `config` and return what it says.

    origin: where the configuration comes from, for the message.
    Raises SpecError, which names every field that is unknown or wrong, one line each: field, value, what was expected.
    """
    problems = Problems()
    if not isinstance(config, Mapping):
        problems.add("config", config, "an object with at least the field image")
        raise problems.to_error(origin)
    values: dict[str, Any] = {}
    for name, value in config.items():
        if name in FIELDS:
            values[name] = FIELDS[name].parse(name, value, problems)
        elif name in UNBUILT:
            if value not in UNBUILT[name]:
                problems.add(name, value, "nothing here: this field is not available in this version")
        else:
            problems.add_unknown(name, value, [*FIELDS, *UNBUILT])
    if "image" not in config:
        problems.add_missing("image", "the path of a .sif file or of a sandbox folder")
    if problems.lines:
        raise problems.to_error(origin)
    values["image"], values["digest"] = split_digest(values["image"])
    return ContainerSpec(**values)


def to_config(spec: ContainerSpec) -> dict[str, object]:
    """Return the configuration that says `spec`: the image, and each field that differs from its default."""
    config: dict[str, object] = {}
    for item in fields(spec):
        value = getattr(spec, item.name)
        if item.name in FIELDS and (item.name == "image" or value != _default(item)):
            config[item.name] = FIELDS[item.name].write(value)
    if spec.digest:
        config["image"] = f"{spec.image}@sha256:{spec.digest}"
    return config


def build_json_schema() -> dict[str, object]:
    """Return the JSON schema (draft 2020-12) of the configuration; kernel-config.schema.json is its copy on disk."""
    properties: dict[str, object] = {}
    for item in fields(ContainerSpec):
        if item.name not in FIELDS:
            continue
        entry = FIELDS[item.name]
        properties[item.name] = {"description": entry.description, **entry.schema}
        if item.name != "image":
            properties[item.name] = {**properties[item.name], "default": entry.write(_default(item))}  # type: ignore[dict-item]  # built one line above
    for name, accepted in UNBUILT.items():
        properties[name] = {"description": "Not available in this version.", "enum": list(accepted)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Container of a kernel (metadata.kernel_provisioner.config of a kernel.json)",
        "type": "object",
        "properties": properties,
        "required": ["image"],
        "additionalProperties": False,
    }


def resolve_paths(spec: ContainerSpec, base_dir: str | os.PathLike[str], environ: Mapping[str, str]) -> ContainerSpec:
    """Return `spec` with absolute host paths: `~`, `$VAR` and `${VAR}` filled in, relative ones taken from `base_dir`.

    base_dir: the folder of the kernel.json. URIs stay as they are, and so do destinations: they are the container's.
    Raises SpecError, naming all fields whose variable is not set.
    """
    problems = Problems()

    def resolve(name: str, path: str) -> str:
        try:
            return resolve_path(path, base_dir, environ)
        except LookupError as error:
            problems.add(name, path, f"a path that can be filled in, but {error.args[0]}")
            return path

    resolved = replace(
        spec,
        image=spec.image if is_uri(spec.image) else resolve("image", spec.image),
        binds=tuple(replace(b, source=resolve(f"binds[{i}]", b.source)) for i, b in enumerate(spec.binds)),
        overlays=tuple(
            replace(o, path=resolve(f"overlays[{i}]", o.path)) if o.kind == "file" else o
            for i, o in enumerate(spec.overlays)
        ),
        home=spec.home if spec.home in ("host", "none") else resolve("home", spec.home),
    )
    if problems.lines:
        raise problems.to_error("the kernel's configuration")
    return resolved


def _default(item: Field[Any]) -> Any:
    return item.default_factory() if item.default_factory is not MISSING else item.default
