"""Is it allowed? A pure comparison of what is asked with one party's `Rules`; every answer that is not yes says how it could be.

Facts about the host (paths without links, digests, signers) come in with the question.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import PolicyError
from ..rules import ANY, KERNELS, Rules, match_name, match_path, match_uri


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """shown: as it was asked for. path: without links, or a URI. digest, signers: where a rule needs them."""

    shown: str
    path: str
    is_kernels: bool = False
    digest: str | None = None
    signers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PathFacts:
    """A bind or an overlay. shown: as it was asked for. path: without links; a word where it is no file."""

    shown: str
    path: str
    is_read_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked for; None and empty: nothing of the kind."""

    user: str
    user_home: str
    image: ImageFacts | None = None
    binds: Sequence[PathFacts] = ()
    overlays: Sequence[PathFacts] = ()
    home: str | None = None
    env: Sequence[str] = ()
    inherit_env: Sequence[str] = ()
    extra_flags: Sequence[str] = ()
    network: str | None = None
    isolation: str | None = None


@dataclass(frozen=True)
class Refusal:
    """label: the field. way_out: the line of configuration that would allow it."""

    label: str
    shown: str
    reason: str
    way_out: str = ""


def find_refusals(rules: Rules, question: Question) -> tuple[Refusal, ...]:
    """Return what of `question` the rules do not allow."""
    return tuple(_iter_refusals(rules, question))


def build_error(who: str, origin: str, refusals: Sequence[Refusal], *, way_out: str) -> PolicyError:
    """Return the error that names each refusal in a line of its own, and in its hint the way out of each."""
    lines = "\n".join(f"  {refusal.label}: {_cut(refusal.shown)}: {refusal.reason}" for refusal in refusals)
    ways = list(dict.fromkeys(refusal.way_out for refusal in refusals if refusal.way_out))
    hint = way_out + (":\n" + "\n".join(f"  {way}" for way in ways) if ways else "")
    return PolicyError(f"{who} asks for what {origin} does not allow:\n{lines}", hint=hint)


def needs_digest(rules: Rules) -> bool:
    """Say whether the digest of an image could decide."""
    return any(pattern.startswith("sha256:") for pattern in rules.images)


def needs_signers(rules: Rules) -> bool:
    """Say whether the signatures of an image could decide."""
    return any(pattern.startswith("signed:") for pattern in rules.images)


def allows_image(rules: Rules, image: ImageFacts, question: Question) -> bool:
    """Say whether one of the rules admits the image."""
    return any(_matches_image(pattern, image, question) for pattern in rules.images)


def _iter_refusals(rules: Rules, question: Question) -> Iterator[Refusal]:
    section = rules.section
    if question.image and not allows_image(rules, question.image, question):
        listed = ", ".join(rules.images).replace(KERNELS, "those of your container kernels") or "none"
        way_out = f'{section}.images.append("{question.image.path}")'
        yield Refusal("image", question.image.shown, f"images that are allowed: {listed}", way_out)
    for bind in question.binds:
        if not any(_matches_bind(pattern, bind, question) for pattern in rules.binds):
            way_out = f'{section}.binds.append("{bind.path}{":ro" if bind.is_read_only else ""}")'
            yield Refusal("binds", bind.shown, _explain_bind(rules, bind, question), way_out)
    for overlay in question.overlays:
        if not any(_matches_path(pattern, overlay.path, question) for pattern in rules.overlays):
            way_out = f'{section}.overlays.append("{overlay.path}")'
            listed = ", ".join(rules.overlays) or "none"
            yield Refusal("overlays", overlay.shown, f"overlays are allowed from: {listed}", way_out)
    if question.home is not None and not any(_matches_path(p, question.home, question) for p in rules.homes):
        listed = ", ".join(rules.homes) or "none at all"
        yield Refusal("home", question.home, f"allowed is {listed}", f'{section}.homes.append("{question.home}")')
    for names, allowed, label in (
        (question.env, rules.env, "env"),
        (question.inherit_env, rules.inherit_env, "inherit_env"),
    ):
        for name in names:
            if not any(match_name(name, pattern) for pattern in allowed):
                listed = ", ".join(allowed) or "none"
                reason = f"variables that are allowed: {listed}"
                yield Refusal(label, name, reason, f'{section}.{label}.append("{name}")')
    for flag in question.extra_flags:
        if not any(fnmatch.fnmatchcase(flag, pattern) for pattern in rules.extra_flags):
            listed = ", ".join(rules.extra_flags) or "none"
            way_out = f'{section}.extra_flags.append("{flag}")'
            yield Refusal("extra_flags", flag, f"flags of the engine that are allowed: {listed}", way_out)
    if question.network is not None and not {ANY, question.network} & set(rules.networks):
        listed = ", ".join(rules.networks) or "none at all"
        way_out = f'{section}.networks.append("{question.network}")'
        yield Refusal("network", question.network, f"allowed is {listed}", way_out)
    if question.isolation is not None and not {ANY, question.isolation} & set(rules.isolations):
        least = rules.isolations[0] if rules.isolations else "nothing"
        way_out = f'{section}.isolation = "{question.isolation}"'
        yield Refusal("isolation", question.isolation, f"at least {least} is demanded", way_out)


def _matches_image(pattern: str, image: ImageFacts, question: Question) -> bool:
    if pattern == ANY:
        return True
    if pattern == KERNELS:
        return image.is_kernels
    if pattern.startswith("sha256:"):
        return image.digest is not None and pattern == f"sha256:{image.digest}"
    if pattern.startswith("signed:"):
        return pattern.removeprefix("signed:") in image.signers
    if "://" in pattern:
        return match_uri(image.path, pattern)
    return image.path.startswith("/") and _matches_path(pattern, image.path, question)


def _matches_path(pattern: str, path: str, question: Question) -> bool:
    """A word that is no path (tmpfs, none) is compared as it is."""
    if not path.startswith("/"):
        return pattern in (ANY, path)
    return match_path(path, pattern, home=question.user_home, user=question.user)


def _matches_bind(pattern: str, bind: PathFacts, question: Question) -> bool:
    if pattern.endswith(":ro") and not bind.is_read_only:
        return False
    return _matches_path(pattern.removesuffix(":ro"), bind.path, question)


def _explain_bind(rules: Rules, bind: PathFacts, question: Question) -> str:
    if any(_matches_path(pattern.removesuffix(":ro"), bind.path, question) for pattern in rules.binds):
        return "allowed for reading only: add :ro"
    listed = ", ".join(rules.binds) or "none"
    meant = "" if bind.shown.startswith(bind.path) else f" (that is {bind.path})"
    return f"folders that may be bound{meant}: {listed}"


def _cut(text: str) -> str:
    return text if len(text) <= 100 else text[:99] + "…"
