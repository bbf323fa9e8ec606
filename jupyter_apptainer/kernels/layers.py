"""One wish out of several: kernel.json, then the notebook's metadata, then what the configuration forces.

Lists are added to, `env` is merged by name, all else is replaced; each value remembers where it comes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ..engine.command import REDACTED, is_secret_name
from .fields import FIELDS
from .spec import ContainerSpec, to_config

# Lists of things that stand side by side; a command's words, for one, only make sense together.
ADDED = frozenset({"binds", "overlays", "inherit_env", "extra_flags", "preload"})


@dataclass(frozen=True)
class Layer:
    """What one place says. names: the fields of `spec` that it has; the others are defaults that say nothing."""

    origin: str
    spec: ContainerSpec
    names: frozenset[str]


@dataclass(frozen=True)
class Setting:
    """One value that holds, for people: `name` is a field, or a field and a name in it."""

    name: str
    value: str
    origin: str


def merge_layers(layers: Sequence[Layer]) -> ContainerSpec:
    """Return the wish that all layers together express; the first is complete, later ones come over it."""
    spec = layers[0].spec
    for layer in layers[1:]:
        values: dict[str, Any] = {name: _merge(spec, layer.spec, name) for name in layer.names}
        if "image" in layer.names:
            values["digest"] = layer.spec.digest
        spec = replace(spec, **values)
    return spec


def list_settings(layers: Sequence[Layer]) -> tuple[Setting, ...]:
    """Return each value that holds and where it comes from, in the order of the fields."""
    order = [item.name for item in fields(ContainerSpec)]
    found: dict[str, list[Setting]] = {}
    for layer in layers:
        config = to_config(layer.spec)
        for name in sorted(layer.names & set(FIELDS), key=order.index):
            settings = list(_iter_settings(name, config.get(name), layer))
            kept = found.get(name, []) if name in ADDED or name == "env" else []
            named = {setting.name for setting in settings}
            found[name] = [old for old in kept if name in ADDED or old.name not in named] + settings
    return tuple(setting for name in order for setting in found.get(name, []))


def _merge(below: ContainerSpec, above: ContainerSpec, name: str) -> Any:
    old, new = getattr(below, name), getattr(above, name)
    if name in ADDED:
        return old + tuple(item for item in new if item not in old)
    return {**old, **new} if name == "env" else new


def _iter_settings(name: str, value: object, layer: Layer) -> Iterator[Setting]:
    if value is None:
        # Said, but the same as the default.
        value = FIELDS[name].write(getattr(layer.spec, name))
    if isinstance(value, Mapping) and name == "env":
        for key, content in value.items():
            yield Setting(f"env.{key}", REDACTED if is_secret_name(key) else _show(content), layer.origin)
    elif isinstance(value, list | tuple) and name in ADDED:
        for item in value:
            yield Setting(name, _show(item), layer.origin)
    else:
        yield Setting(name, _show(value), layer.origin)


def _show(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_show, value))
    text = str(value).lower() if isinstance(value, bool) else str(value)
    # It goes to logs and terminals, and a stranger may have written it.
    return text if text.isprintable() else ascii(text)
