"""What a kernel gets in the end: kernel.json, the notebook's metadata and forced values in one wish, allowed by every policy.

The one way from configuration to `ContainerSpec`; `prepare` makes the plan of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..config import ApptainerConfig
from ..engine.environment import build_engine_environment
from ..engine.locate import get_engine
from ..engine.runner import Runner
from ..engine.signature import build_verify
from ..errors import PolicyError
from ..places import Places
from ..policy import forbids_notebooks, load_notebook_policy, load_policies
from ..rules import ANY
from .fields import FIELDS
from .layers import Layer, Setting, list_settings, merge_layers
from .notebook import FIELD, load_settings
from .notebook_wish import Reader, build_layer
from .permits import FindSigners, build_question, check_rules
from .spec import Bridge, ContainerSpec, parse_container_spec, resolve_paths


@dataclass(frozen=True)
class Settled:
    """spec: what holds. settings: each value with its origin. warnings: what was not honoured, and why."""

    spec: ContainerSpec
    settings: tuple[Setting, ...]
    warnings: tuple[str, ...] = ()


def settle_spec(
    config: Mapping[str, object],
    *,
    base_dir: str,
    environ: Mapping[str, str],
    settings: ApptainerConfig,
    places: Places,
    kernelspec_env: Mapping[str, str] | None = None,
    notebook: str | None = None,
    notebook_settings: Mapping[str, object] | None = None,
    parameters: Mapping[str, object] | None = None,
) -> Settled:
    """Merge and judge. config: of the kernel.json in `base_dir`. notebook: path of the notebook that the kernel is for;
    notebook_settings: what its metadata will be, by default what the file has.
    parameters: fields that were chosen for this start, which kernel.json permits (`check_parameters`).

    Raises SpecError for what is wrong, PolicyError for what is not allowed.
    """
    spec = resolve_paths(parse_container_spec(config), base_dir, environ)
    if "bridge" not in config:
        spec = replace(spec, bridge=_find_default_bridge(settings))
    layers = [Layer("kernel.json", spec, frozenset(config) & set(FIELDS))]
    warnings: list[str] = []
    find_signers = _make_find_signers(settings)
    if notebook:
        metadata = load_settings(notebook) if notebook_settings is None else notebook_settings
        layer = _build_notebook_layer(notebook, metadata, spec, settings, environ, places, find_signers, warnings)
        layers += [layer] if layer else []
    layers += _build_layer("parameters", parameters or {}, spec, base_dir, environ, "the start's parameters")
    layers += _build_layer("server", settings.force, spec, os.sep, environ, "ApptainerConfig.force")
    merged = merge_layers(layers)
    check_policies(merged, settings, places, kernelspec_env or {}, find_signers=find_signers)
    return Settled(merged, list_settings(layers), tuple(warnings))


def _find_default_bridge(settings: ApptainerConfig) -> Bridge:
    """Return what a kernel gets that asks for nothing: a policy lowers it, and does not refuse the kernel."""
    found: str = settings.bridge
    for rules in load_policies(settings.config):
        if not {ANY, found} & set(rules.bridges):
            found = rules.bridges[0]
    return found  # type: ignore[return-value]  # one of BRIDGES


def check_policies(
    spec: ContainerSpec,
    settings: ApptainerConfig,
    places: Places,
    kernelspec_env: Mapping[str, str],
    *,
    find_signers: FindSigners | None = None,
) -> None:
    """Raise PolicyError where an administrator's policy does not allow the kernel. Paths are absolute."""
    policies = load_policies(settings.config)
    if not policies:
        return
    question = build_question(spec, frozenset(FIELDS), kernelspec_env)
    for rules in policies:
        question = check_rules(
            rules,
            question,
            places,
            find_signers or _make_find_signers(settings),
            who="the kernel",
            way_out="change the kernel (`jupyter apptainer kernel edit NAME`), or ask whoever wrote the policy for",
        )


def _build_notebook_layer(
    path: str,
    metadata: Mapping[str, object],
    spec: ContainerSpec,
    settings: ApptainerConfig,
    environ: Mapping[str, str],
    places: Places,
    find_signers: FindSigners,
    warnings: list[str],
) -> Layer | None:
    if not metadata:
        return None
    policy = load_notebook_policy(settings.config)
    if not policy.enabled:
        warnings.append(f"the notebook {path} has settings for its container; NotebookPolicy.enabled is False")
        return None
    forbidding = forbids_notebooks(settings.config)
    if forbidding:
        raise PolicyError(
            f"the notebook {path} has settings for its container, and {forbidding} does not allow that",
            hint=f"take `{FIELD}` out of its metadata, or write `c.NotebookPolicy.enabled = False` to pass over it",
        )
    return build_layer(path, metadata, spec, Reader(policy, settings, environ, places, find_signers))


def _build_layer(
    name: str,
    config: Mapping[str, object],
    spec: ContainerSpec,
    base_dir: str,
    environ: Mapping[str, str],
    origin: str,
) -> list[Layer]:
    if not config:
        return []
    wish = parse_container_spec({"image": spec.image, **config}, origin=origin)
    return [Layer(name, resolve_paths(wish, base_dir, environ), frozenset(config) & set(FIELDS))]


def _make_find_signers(settings: ApptainerConfig) -> FindSigners:
    def find(image: str) -> frozenset[str]:
        engine = get_engine(settings.engine_path or None)
        return Runner().run(build_verify(engine, image, build_engine_environment(os.environ)))

    return find
