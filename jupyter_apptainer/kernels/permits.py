"""The question that is put to each party's rules: what a wish asks for, with the facts of this host that decide.

Links are followed here, once, and what was judged is what is used afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from ..errors import CommandError
from ..images.digest import compute_digest
from ..places import Places
from ..policy import find_user
from ..rules import Rules
from .fields import format_bind, format_overlay, is_uri
from .judge import (
    ImageFacts,
    PathFacts,
    Question,
    allows_image,
    build_error,
    find_refusals,
    needs_digest,
    needs_signers,
)
from .spec import ContainerSpec

FindSigners = Callable[[str], frozenset[str]]


def build_question(spec: ContainerSpec, names: Collection[str], env: Mapping[str, str] | None = None) -> Question:
    """Return what `spec` asks for in the fields `names`. env: variables that come from elsewhere in kernel.json."""
    user, user_home = find_user()
    home = spec.home if spec.home in ("host", "none") else os.path.realpath(spec.home)
    variables = {**(env or {}), **spec.env} if "env" in names else {}
    return Question(
        user=user,
        user_home=user_home,
        image=build_image_facts(spec.image) if "image" in names else None,
        binds=[
            PathFacts(format_bind(bind), os.path.realpath(bind.source), bind.mode == "ro")
            for bind in (spec.binds if "binds" in names else ())
        ],
        overlays=[
            PathFacts(
                format_overlay(overlay),
                os.path.realpath(overlay.path) if overlay.path else overlay.kind,
                overlay.is_read_only,
            )
            for overlay in (spec.overlays if "overlays" in names else ())
        ],
        home=home if "home" in names else None,
        env=tuple(variables),
        inherit_env=spec.inherit_env if "inherit_env" in names else (),
        extra_flags=spec.extra_flags if "extra_flags" in names else (),
        network=spec.network if "network" in names else None,
        isolation=spec.isolation if "isolation" in names else None,
        bridge=spec.bridge if "bridge" in names else None,
    )


def build_image_facts(image: str, *, is_kernels: bool = False) -> ImageFacts:
    """Return what a path or a URI tells by itself."""
    return ImageFacts(shown=image, path=image if is_uri(image) else os.path.realpath(image), is_kernels=is_kernels)


def complete_image(rules: Rules, question: Question, places: Places, find_signers: FindSigners) -> Question:
    """Add digest and signers to the question, where the path alone does not decide and they could: both read the whole file."""
    image = question.image
    if image is None or is_uri(image.path) or allows_image(rules, image, question):
        return question
    if needs_digest(rules) and image.digest is None and os.path.isfile(image.path):
        image = replace(image, digest=compute_digest(image.path, places))
        question = replace(question, image=image)
    if needs_signers(rules) and not allows_image(rules, image, question) and os.path.isfile(image.path):
        try:
            image = replace(image, signers=find_signers(image.path))
        except CommandError:
            # Not signed, or not by a key that is known here.
            return question
    return replace(question, image=image)


def check_rules(
    rules: Rules, question: Question, places: Places, find_signers: FindSigners, *, who: str, way_out: str
) -> Question:
    """Raise PolicyError where the rules do not allow all of it; returns the question with what was found out."""
    question = complete_image(rules, question, places, find_signers)
    refusals = find_refusals(rules, question)
    if refusals:
        raise build_error(who, rules.origin, refusals, way_out=way_out)
    return question
