"""POST /tasks: what a client may order, and the task that it becomes. Relative paths start from the server's folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import ApptainerConfig
from ..images.build_options import BuildOptions
from ..images.choices import build_transfer_settings, choose_target
from ..images.reference import parse_reference
from ..images.work import RecipeSource, plan_build, plan_pull, plan_push
from ..kernels.freeze_work import plan_freeze
from ..kernels.overlay_work import plan_check, plan_copy, plan_create, plan_grow
from ..places import Places
from ..tasks.engine import plan_install
from ..tasks.model import TaskSpec


@dataclass(frozen=True)
class Desk:
    """Where orders are taken. root: the server's folder."""

    places: Places
    settings: ApptainerConfig
    root: str

    def find_path(self, text: str) -> Path:
        """Return the path that somebody has written."""
        return Path(os.path.abspath(os.path.join(self.root, os.path.expanduser(text))))


def _order_build(desk: Desk, args: Mapping[str, Any]) -> TaskSpec:
    recipe = args["recipe"]
    source = RecipeSource(
        recipe["kind"], str(desk.find_path(recipe["path"])), recipe.get("build_args", {}), recipe.get("base", "")
    )
    bundle = desk.settings.ca_bundle
    options = BuildOptions(
        compression=args.get("compression", "lz4"),
        is_forced=args.get("force", False),
        has_host_settings=args.get("host_settings", False),
        ca_bundle=Path(bundle).expanduser() if bundle else None,
    )
    return plan_build(source, desk.find_path(args["target"]), options, engine=desk.settings.engine_path)


def _order_pull(desk: Desk, args: Mapping[str, Any]) -> TaskSpec:
    name = parse_reference(args["uri"]).file_name
    target = desk.find_path(args["target"]) if "target" in args else choose_target(desk.places, desk.settings, name)
    settings = build_transfer_settings(desk.settings, no_https=args.get("no_https", False))
    return plan_pull(
        args["uri"],
        target / name if target.is_dir() else target,
        settings,
        is_forced=args.get("force", False),
        engine=desk.settings.engine_path,
    )


def _order_push(desk: Desk, args: Mapping[str, Any]) -> TaskSpec:
    settings = build_transfer_settings(desk.settings, no_https=args.get("no_https", False))
    return plan_push(desk.find_path(args["image"]), args["uri"], settings, engine=desk.settings.engine_path)


def _order_freeze(desk: Desk, args: Mapping[str, Any]) -> TaskSpec:
    image = desk.find_path(args["image"]) if "image" in args else None
    return plan_freeze(
        desk.find_path(args["overlay"]),
        desk.find_path(args["target"]),
        image=image,
        engine=desk.settings.engine_path,
    )


def _order_overlay(desk: Desk, args: Mapping[str, Any]) -> TaskSpec:
    image = desk.find_path(args["image"]) if "image" in args else None
    path = desk.find_path(args["path"])
    return plan_create(path, args["size_mib"], image=image, engine=desk.settings.engine_path)


def _order_copy(desk: Desk, args: Mapping[str, Any]) -> TaskSpec:
    return plan_copy(desk.find_path(args["overlay"]), desk.find_path(args["target"]))


def _order_growth(desk: Desk, args: Mapping[str, Any]) -> TaskSpec:
    return plan_grow(desk.find_path(args["overlay"]), args["size_mib"], engine=desk.settings.engine_path)


def _order_check(desk: Desk, args: Mapping[str, Any]) -> TaskSpec:
    return plan_check(desk.find_path(args["overlay"]), engine=desk.settings.engine_path)


def _order_install(_: Desk, args: Mapping[str, Any]) -> TaskSpec:
    return plan_install(is_forced=args.get("force", False))


ORDERS: Mapping[str, Callable[[Desk, Mapping[str, Any]], TaskSpec]] = {
    "image-build": _order_build,
    "image-pull": _order_pull,
    "image-push": _order_push,
    "overlay-create": _order_overlay,
    "overlay-copy": _order_copy,
    "overlay-grow": _order_growth,
    "overlay-check": _order_check,
    "overlay-freeze": _order_freeze,
    "engine-install": _order_install,
}
