"""From the metadata of a notebook to a layer of the wish: names are looked up, and everything is held against the reader's rules.

A kernel starts when a notebook is opened, before anybody has read it. So it may narrow what its kernel sees, and choose among what
the reader has; it brings nothing of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from jupyter_core.paths import jupyter_config_dir

from ..config import CONFIG_NAME, ApptainerConfig
from ..errors import PolicyError
from ..places import Places
from ..policy import ISOLATIONS, NotebookPolicy, build_notebook_rules
from ..rules import BRIDGES
from .fields import FIELDS, Problems, format_bind, parse_bind
from .judge import Refusal, build_error, find_refusals
from .known_images import KnownImages, find_known_images, resolve_name
from .layers import Layer
from .permits import FindSigners, build_question, complete_image
from .spec import BindWish, ContainerSpec, parse_container_spec, resolve_paths

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# Where a bind by path may appear besides its own path: nothing in an image looks for programs or settings there.
_DATA_FOLDERS = ("/data", "/mnt", "/srv")
_NETWORKS = ("host", "none")


@dataclass(frozen=True)
class Reader:
    """Who opens the notebook: their configuration, variables and places."""

    policy: NotebookPolicy
    settings: ApptainerConfig
    environ: Mapping[str, str]
    places: Places
    find_signers: FindSigners


def build_layer(path: str, metadata: Mapping[str, object], below: ContainerSpec, reader: Reader) -> Layer:
    """Return what the notebook at `path` asks for. below: the kernel's own wish.

    Raises SpecError for what is wrong, PolicyError for what the reader has not allowed, and what finding an image raises.
    """
    origin = f"the metadata of the notebook {path}"
    refusals = list(_refuse_fields(metadata, reader.policy))
    named, config = _take_named_binds(metadata, reader)
    refusals += [bind for bind in named.values() if isinstance(bind, Refusal)]
    known = find_known_images(below.image, reader.policy.images, reader.environ)
    # A name is only looked up where an image may be chosen at all.
    if isinstance(config.get("image"), str) and not refusals:
        config["image"] = _resolve_image(str(config["image"]), known, reader.places)
    wish = parse_container_spec({"image": below.image, **config}, origin=origin)
    if refusals:
        raise _build_error(path, refusals)
    names = frozenset(metadata) & set(FIELDS)
    asked = resolve_paths(wish, os.path.dirname(path), reader.environ)
    wish = _use_real_paths(asked)
    refusals += _refuse_values(wish, config, known, reader)
    refusals += _refuse_destinations(asked)
    refusals += _refuse_widening(wish, names, below)
    if refusals:
        raise _build_error(path, refusals)
    binds = _put_back(wish.binds, named)
    return Layer(f"notebook {path}", replace(wish, binds=binds), names)


def _refuse_fields(metadata: Mapping[str, object], policy: NotebookPolicy) -> Iterator[Refusal]:
    for name in metadata:
        # What is no field at all is left to the parser, which knows what was meant.
        if name in FIELDS and name not in policy.fields:
            way_out = f'c.NotebookPolicy.fields.append("{name}")'
            yield Refusal(name, str(metadata[name]), "a notebook may not have this field", way_out)


def _take_named_binds(
    metadata: Mapping[str, object], reader: Reader
) -> tuple[dict[int, BindWish | Refusal], dict[str, object]]:
    """Return the binds that are given by name, by their place in the list, and the metadata without them."""
    binds = metadata.get("binds")
    if not isinstance(binds, list):
        return {}, dict(metadata)
    named = {i: _find_named(bind, reader) for i, bind in enumerate(binds) if _is_name(bind)}
    return named, {**metadata, "binds": [bind for i, bind in enumerate(binds) if i not in named]}


def _is_name(bind: object) -> bool:
    return isinstance(bind, str) and _NAME.fullmatch(bind) is not None


def _find_named(name: str, reader: Reader) -> BindWish | Refusal:
    binds = reader.settings.named_binds
    if name not in binds:
        known = ", ".join(sorted(binds)) or "none yet"
        way_out = f'c.ApptainerConfig.named_binds = {{"{name}": "/path/of/{name}:/{name}:ro"}}'
        return Refusal("binds", name, f"you have no bind of this name (names: {known})", way_out)
    problems = Problems()
    wish = parse_bind(f"named_binds.{name}", binds[name], problems)
    if wish and not wish.source.startswith(("/", "~", "$")):
        problems.add(f"named_binds.{name}", binds[name], "a path that begins with /, ~ or $")
    if wish is None or problems.lines:
        raise problems.to_error("ApptainerConfig")
    return resolve_paths(ContainerSpec(image="/", binds=(wish,)), "/", reader.environ).binds[0]


def _resolve_image(image: str, known: KnownImages, places: Places) -> str:
    path, digest = resolve_name(image, known, places)
    return f"{path}@sha256:{digest}" if digest else path


def _use_real_paths(wish: ContainerSpec) -> ContainerSpec:
    """What is judged is what is used: a link that points elsewhere a moment later changes nothing."""
    return replace(
        wish,
        image=os.path.realpath(wish.image) if wish.image.startswith("/") else wish.image,
        binds=tuple(
            replace(bind, source=os.path.realpath(bind.source), destination=bind.destination or bind.source)
            for bind in wish.binds
        ),
        overlays=tuple(
            replace(overlay, path=os.path.realpath(overlay.path)) if overlay.path else overlay
            for overlay in wish.overlays
        ),
    )


def _refuse_values(
    wish: ContainerSpec, config: Mapping[str, Any], known: KnownImages, reader: Reader
) -> Iterator[Refusal]:
    rules = build_notebook_rules(reader.policy)
    question = build_question(wish, config.keys() - {"home", "network", "isolation", "bridge"})
    if question.image:
        image = replace(question.image, shown=config["image"], is_kernels=known.is_kernels(wish.image))
        question = replace(question, image=image)
    question = replace(
        question,
        # In the author's words.
        binds=[replace(facts, shown=text) for facts, text in zip(question.binds, config.get("binds", []), strict=True)],
        overlays=[
            replace(facts, shown=text)
            for facts, text in zip(question.overlays, config.get("overlays", []), strict=True)
        ],
    )
    yield from find_refusals(rules, complete_image(rules, question, reader.places, reader.find_signers))


def _refuse_destinations(asked: ContainerSpec) -> Iterator[Refusal]:
    """A bind over a folder in which programs look for programs would bring what runs when the kernel starts."""
    for bind in asked.binds:
        destination = os.path.normpath(bind.destination or bind.source)
        is_data = any(destination == folder or destination.startswith(folder + "/") for folder in _DATA_FOLDERS)
        if destination != bind.source and not is_data:
            reason = f"a bind by path appears at its own path or below {', '.join(_DATA_FOLDERS)}, not at {destination}"
            way_out = f'c.ApptainerConfig.named_binds = {{"NAME": {format_bind(bind)!r}}}'
            yield Refusal("binds", format_bind(bind), reason, way_out)


def _refuse_widening(wish: ContainerSpec, names: frozenset[str], below: ContainerSpec) -> Iterator[Refusal]:
    """Home, isolation, network and bridge can only become narrower, whatever the policy says."""
    if "home" in names and wish.home not in ("none", below.home):
        yield Refusal("home", wish.home, f"the kernel has {below.home}, and a notebook can only narrow it to none")
    for name, order in (("isolation", ISOLATIONS), ("network", _NETWORKS), ("bridge", BRIDGES)):
        old, new = getattr(below, name), getattr(wish, name)
        if name in names and order.index(new) < order.index(old):
            yield Refusal(name, new, f"the kernel has {old}, and a notebook can only narrow it")


def _put_back(others: tuple[BindWish, ...], named: Mapping[int, BindWish | Refusal]) -> tuple[BindWish, ...]:
    """Return all binds in the order in which the notebook has them."""
    rest = iter(others)
    order: list[BindWish] = []
    for index in range(len(others) + len(named)):
        bind = named.get(index) or next(rest)
        if isinstance(bind, BindWish):
            order.append(bind)
    return tuple(order)


def _build_error(path: str, refusals: list[Refusal]) -> PolicyError:
    file = os.path.join(jupyter_config_dir(), CONFIG_NAME + ".py")
    if any(refusal.way_out for refusal in refusals):
        way_out = f"take it out of the notebook's metadata, or, where you trust its author, write into {file}"
    else:
        way_out = "take it out of the notebook's metadata"
    return build_error(f"the notebook {path}", "your NotebookPolicy", refusals, way_out=way_out)
