"""`jupyter apptainer image pull | push`: images from and to registries."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..images.catalogue import find_image
from ..images.reference import parse_reference
from ..images.work import plan_pull, plan_push
from ..places import Places
from ..tasks.model import TaskSpec
from ..tasks.start import start_task
from .image_settings import build_transfer_settings, choose_target, find_engine_and_places
from .output import print_json, print_note
from .task_view import show_task
from .verbs import add_verb

_NOTES = {
    "downloaded": "",
    "copied": "Copied: it was pulled before under another name.",
    "kept": "It is here already, as it is in the registry now.",
}


def add_verbs(commands: Any) -> None:
    """Add the two."""
    pull = add_verb(
        commands,
        "image",
        "pull",
        "fetch an image once; kernels that name the URI then find the file",
        "pull docker://python:3.12-slim",
        "pull oras://ghcr.io/apptainer/lolcow:latest lolcow.sif",
        "pull docker-archive:saved.tar lab.sif",
    )
    pull.add_argument(
        "uri",
        metavar="URI",
        help="docker://, oras://, library:// or https:// name, tag or @sha256:… at its end; docker-archive:FILE, oci-archive:FILE, ./FILE or ./FOLDER",
    )
    pull.add_argument(
        "out",
        metavar="OUT",
        nargs="?",
        help="the file (default: NAME_TAG.sif in the first folder of ApptainerConfig.image_dirs)",
    )
    pull.add_argument("--force", action="store_true", help="replace OUT where it is another image")
    pull.set_defaults(func=_pull)
    push = add_verb(
        commands,
        "image",
        "push",
        "send a .sif file to a registry; prints the name with its digest",
        "push lab.sif oras://localhost:5000/lab/tools:1.0 --no-https",
    )
    push.add_argument("image", metavar="IMG", help="a .sif file")
    push.add_argument("uri", metavar="URI", help="oras://HOST/NAME:TAG")
    push.set_defaults(func=_push)
    for command in (pull, push):
        command.add_argument(
            "--no-https", action="store_true", help="the registry speaks plain http (see ApptainerConfig.no_https)"
        )
        command.add_argument(
            "--detach", action="store_true", help="print the task's id and do not wait: `jupyter apptainer tasks`"
        )
        command.add_argument("--json", action="store_true", help="print an object with path, URI and digest")


def _pull(arguments: argparse.Namespace) -> int:
    engine, places = find_engine_and_places()
    reference = parse_reference(arguments.uri)
    target = Path(os.path.abspath(arguments.out)) if arguments.out else choose_target(places, reference.file_name)
    if target.is_dir():
        target /= reference.file_name
    settings = build_transfer_settings(no_https=arguments.no_https)
    spec = plan_pull(arguments.uri, target, settings, is_forced=arguments.force, engine=engine.path)
    pulled = _do(arguments, places, spec)
    if pulled is None:
        return 0
    if arguments.json:
        print_json(pulled)
        return 0
    print(pulled["path"])
    if _NOTES[pulled["how"]]:
        print_note(_NOTES[pulled["how"]])
    if pulled["digest"]:
        print_note(f"Digest: {pulled['digest']}")
    return 0


def _push(arguments: argparse.Namespace) -> int:
    engine, places = find_engine_and_places()
    image = find_image(places, arguments.image)
    settings = build_transfer_settings(no_https=arguments.no_https)
    pushed = _do(arguments, places, plan_push(Path(image), arguments.uri, settings, engine=engine.path))
    if pushed is None:
        return 0
    if arguments.json:
        print_json(pushed)
    else:
        print(f"{pushed['uri']}@{pushed['digest']}" if pushed["digest"] else pushed["uri"])
    return 0


def _do(arguments: argparse.Namespace, places: Places, spec: TaskSpec) -> Mapping[str, Any] | None:
    """Return what came of it; None where nobody waits for that."""
    started = start_task(places, spec)
    if not arguments.detach:
        return show_task(places, started)
    print(started.task.id)
    return None
