"""`jupyter apptainer kernel restart`: a running kernel anew, with other settings that its notebook keeps."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict

from ..config import ApptainerConfig, load_config
from ..kernels.change import Change, change_kernel
from ..kernels.describe import hide_secrets
from ..places import find_places
from .container_options import build_config
from .output import print_json, print_note


def restart_kernel(arguments: argparse.Namespace) -> int:
    """Start a running kernel anew with other settings."""
    change = change_kernel(
        find_places(),
        arguments.kernel,
        _keep_names(build_config(arguments), arguments),
        ApptainerConfig(config=load_config()),
        os.environ,
        unset=tuple(arguments.unset),
        is_later=arguments.later,
    )
    if arguments.json:
        print_json({**asdict(change), "metadata": hide_secrets(change.metadata)})
        return 0
    if change.notebook:
        print(change.notebook)
        print_note("its file has changed: reload it (File > Reload from Disk) before you save it")
    if change.is_ended:
        _note_end(change)
    return 0


def restart_edited(pattern: str) -> int:
    """Start a running kernel anew, for its kernel.json has changed."""
    change = change_kernel(find_places(), pattern, {}, ApptainerConfig(config=load_config()), os.environ)
    _note_end(change)
    return 0


def _note_end(change: Change) -> None:
    print_note(f"kernel {change.kernel_id[:8]} was ended; its server starts it anew within seconds")


def _keep_names(config: dict[str, object], arguments: argparse.Namespace) -> dict[str, object]:
    """What stands in a notebook is looked up by its reader: an image by its name, a bind by the name that the reader gave it."""
    if arguments.image and os.sep not in arguments.image and not os.path.exists(arguments.image):
        config["image"] = arguments.image
    if arguments.bind:
        binds = zip(arguments.bind, config["binds"], strict=True)  # type: ignore[call-overload]  # a list, from the same words
        config["binds"] = [given if not os.path.exists(given.partition(":")[0]) else path for given, path in binds]
    return config
