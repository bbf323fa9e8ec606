"""Is it allowed? A pure comparison of what is asked with one party's `Rules`; every answer that is not yes says how it could be.

Facts about the host (paths without links, digests, signers) come in with the question.
"""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import PolicyError
from ..rules import ANY, KERNELS, Rules, match_name, match_path, match_uri

_SHOWN_CHARACTERS = 200


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
    bridge: str | None = None


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
    lines = "\n".join(f"  {r.label}: {_cut(r.shown)}: {_cut(r.reason)}" for r in refusals)
    ways = list(dict.fromkeys(refusal.way_out for refusal in refusals if refusal.way_out))
    hint = way_out + (":\n" + "\n".join(f"  {way}" for way in ways) if ways else "")
    return PolicyError(f"{_cut(who)} asks for what {origin} does not allow:\n{lines}", hint=hint)


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
    yield from _judge_image(rules, question)
    yield from _judge_paths(rules, question)
    yield from _judge_names(rules, question)
    yield from _judge_modes(rules, question)


def _judge_image(rules: Rules, question: Question) -> Iterator[Refusal]:
    image = question.image
    if image and not allows_image(rules, image, question):
        listed = [pattern if pattern != KERNELS else "those of your container kernels" for pattern in rules.images]
        yield Refusal(
            "image", image.shown, f"images that are allowed: {_list(listed)}", _append(rules, "images", image.path)
        )


def _judge_paths(rules: Rules, question: Question) -> Iterator[Refusal]:
    for bind in question.binds:
        if not any(_matches_bind(pattern, bind, question) for pattern in rules.binds):
            way_out = _append(rules, "binds", bind.path, ":ro" if bind.is_read_only else "")
            yield Refusal("binds", bind.shown, _explain_bind(rules, bind, question), way_out)
    for overlay in question.overlays:
        if not any(_matches_path(pattern, overlay.path, question) for pattern in rules.overlays):
            reason = f"overlays are allowed from: {_list(rules.overlays)}"
            yield Refusal("overlays", overlay.shown, reason, _append(rules, "overlays", overlay.path))
    home = question.home
    if home is not None and not any(_matches_path(pattern, home, question) for pattern in rules.homes):
        yield Refusal("home", home, f"allowed is {_list(rules.homes)}", _append(rules, "homes", home))


def _judge_names(rules: Rules, question: Question) -> Iterator[Refusal]:
    for label, names, allowed in (
        ("env", question.env, rules.env),
        ("inherit_env", question.inherit_env, rules.inherit_env),
    ):
        for name in names:
            if not any(match_name(name, pattern) for pattern in allowed):
                reason = f"variables that are allowed: {_list(allowed)}"
                yield Refusal(label, name, reason, f"{rules.section}.{label}.append({name!r})")
    for flag in question.extra_flags:
        if not any(fnmatch.fnmatchcase(flag, pattern) for pattern in rules.extra_flags):
            reason = f"flags of the engine that are allowed: {_list(rules.extra_flags)}"
            yield Refusal("extra_flags", flag, reason, _append(rules, "extra_flags", flag))


def _judge_modes(rules: Rules, question: Question) -> Iterator[Refusal]:
    network, isolation = question.network, question.isolation
    if network is not None and not {ANY, network} & set(rules.networks):
        way_out = f"{rules.section}.networks.append({network!r})"
        yield Refusal("network", network, f"allowed is {_list(rules.networks)}", way_out)
    if question.bridge is not None and not {ANY, question.bridge} & set(rules.bridges):
        way_out = f"{rules.section}.bridge = {question.bridge!r}"
        yield Refusal("bridge", question.bridge, f"at most {rules.bridges[0]} is allowed", way_out)
    if isolation is not None and not {ANY, isolation} & set(rules.isolations):
        way_out = f"{rules.section}.isolation = {isolation!r}"
        yield Refusal("isolation", isolation, f"at least {rules.isolations[0]} is demanded", way_out)


def _append(rules: Rules, name: str, word: str, suffix: str = "") -> str:
    """Return the line that allows exactly this word. It will be copied: a stranger chose the word, so it is quoted twice."""
    return f"{rules.section}.{name}.append({glob.escape(word) + suffix!r})"


def _list(words: Sequence[str]) -> str:
    return ", ".join(words) or "none"


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
    meant = "" if bind.shown.startswith(bind.path) else f"this is {bind.path}; "
    return f"{meant}folders that may be bound: {_list(rules.binds)}"


def _cut(text: str) -> str:
    """Strangers' words do not move the cursor of a terminal and do not fill the dialog."""
    plain = text if text.isprintable() else ascii(text)
    return plain if len(plain) <= _SHOWN_CHARACTERS else plain[: _SHOWN_CHARACTERS - 1] + "…"
