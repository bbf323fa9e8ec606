"""`jupyter apptainer image pull | push`: images from and to registries."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..images.catalogue import find_image
from ..images.reference import parse_reference
from ..images.transfer import pull_image, push_image
from .image_settings import build_transfer_settings, choose_target, find_engine_and_places
from .output import print_json, print_note
from .transfer_progress import ended_by_signals, show_transfer
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
        command.add_argument("--json", action="store_true", help="print an object with path, URI and digest")


def _pull(arguments: argparse.Namespace) -> int:
    engine, places = find_engine_and_places()
    reference = parse_reference(arguments.uri)
    target = Path(os.path.abspath(arguments.out)) if arguments.out else choose_target(places, reference.file_name)
    if target.is_dir():
        target /= reference.file_name
    settings = build_transfer_settings(no_https=arguments.no_https)
    with ended_by_signals(), show_transfer() as on_progress:
        pulled = pull_image(
            engine, places, arguments.uri, target, settings=settings, is_forced=arguments.force, on_progress=on_progress
        )
    if arguments.json:
        print_json(asdict(pulled))
        return 0
    print(pulled.path)
    if _NOTES[pulled.how]:
        print_note(_NOTES[pulled.how])
    if pulled.digest:
        print_note(f"Digest: {pulled.digest}")
    return 0


def _push(arguments: argparse.Namespace) -> int:
    engine, places = find_engine_and_places()
    image = find_image(places, arguments.image)
    settings = build_transfer_settings(no_https=arguments.no_https)
    with ended_by_signals(), show_transfer() as on_progress:
        digest = push_image(engine, Path(image), arguments.uri, settings=settings, on_progress=on_progress)
    reference = parse_reference(arguments.uri)
    if arguments.json:
        print_json({"path": image, "uri": reference.uri, "digest": digest})
    else:
        print(f"{reference.uri}@{digest}" if digest else reference.uri)
    return 0
