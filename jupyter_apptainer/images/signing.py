"""Sign images and verify their signatures, with the engine and the user's own ring of keys."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from ..engine.environment import build_engine_environment
from ..engine.image_commands import SignerCheck, build_check_signatures, build_sign
from ..engine.locate import EngineInfo
from ..engine.runner import Runner
from ..errors import ImageInvalid
from ..places import Places
from .identity import check_image
from .records import build_record, iter_records, save_record
from .reference import parse_reference


def verify_image(
    engine: EngineInfo, image: str, environ: Mapping[str, str], *, is_local: bool = False
) -> tuple[SignerCheck, ...]:
    """Return who signed the image. is_local: know only the keys of this machine, and ask no key server.

    Raises SignatureError where it is not signed, has changed since, or is signed with a key that nobody here knows.
    """
    _check_sif(image)
    return Runner().run(build_check_signatures(engine, image, build_engine_environment(environ), is_local=is_local))


def sign_image(
    engine: EngineInfo,
    places: Places,
    image: str,
    environ: Mapping[str, str],
    *,
    key_index: int | None = None,
    passphrase: str = "",
) -> None:
    """Add a signature to the image. key_index: as `apptainer key list --secret` counts; None for the first.

    Raises SignatureError where there is no key, or the passphrase is wrong.
    """
    _check_sif(image)
    names = [record for record in iter_records(places) if record.path == os.path.abspath(image) and record.is_current]
    command = build_sign(engine, image, build_engine_environment(environ), key_index=key_index)
    Runner().run(replace(command, stdin=passphrase + "\n"))
    for record in names:
        # The file has grown, and is still the image that was pulled.
        save_record(places, build_record(parse_reference(record.uri), record.digest, record.path, record.pulled_at))


def _check_sif(image: str) -> None:
    kind = check_image(image).kind
    if kind != "sif":
        raise ImageInvalid(f"{image} is a {kind}, and only SIF files carry signatures", hint="build a .sif of it first")
