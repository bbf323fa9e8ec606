"""What may be asked of a container, as values: allow-lists, and how a word is compared with their patterns.

Everything here is pure; `policy` fills `Rules` from configuration, `kernels.judge` asks them. What is not matched is not allowed.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from .errors import PolicyError

ANY = "*"
KERNELS = "kernels"
# What a kernel may ask of the host, the most first.
BRIDGES = ("full", "read", "off")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SIGNED = re.compile(r"signed:[0-9a-f]{40}")
_URI = re.compile(r"(docker|oras|library)://[A-Za-z0-9._\-/:@]+")
_GLOB = re.compile(r"[*?\[]")
# What may follow a URI prefix: a path, or a tag and a digest. `:5000/x` would be another port, `@host` another host.
_URI_REST = re.compile(r"(?:/[A-Za-z0-9._\-/]+)?(?::[A-Za-z0-9._\-]+)?(?:@sha256:[0-9a-f]{64})?")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """One party's allow-lists. `origin` names the party for people, `section` is what a line of its configuration begins with.

    images: `*`, folders and globs, URI prefixes, `sha256:…`, `signed:FINGERPRINT`, `kernels`. binds: folders and globs, with
    `:ro` for reading only. overlays: folders and globs, `tmpfs`. homes: `host`, `none`, folders and globs. env, inherit_env:
    NAME or PREFIX_*. extra_flags: globs of single words.
    """

    origin: str
    section: str
    images: tuple[str, ...] = (ANY,)
    binds: tuple[str, ...] = (ANY,)
    overlays: tuple[str, ...] = (ANY,)
    homes: tuple[str, ...] = (ANY,)
    env: tuple[str, ...] = (ANY,)
    inherit_env: tuple[str, ...] = (ANY,)
    extra_flags: tuple[str, ...] = (ANY,)
    networks: tuple[str, ...] = (ANY,)
    isolations: tuple[str, ...] = (ANY,)
    bridges: tuple[str, ...] = (ANY,)


def check_image_patterns(patterns: Iterable[str], origin: str) -> None:
    """Refuse an entry of `images` that could never match as it was meant. Raises PolicyError."""
    for pattern in patterns:
        is_word = pattern in (ANY, KERNELS) or any(p.fullmatch(pattern) for p in (_DIGEST, _SIGNED, _URI))
        if not is_word and not pattern.startswith(("/", "~/")):
            raise PolicyError(
                f"{origin} has {pattern!r} among its images, which is none of: an absolute path or glob, docker://…, oras://…, "
                f"library://…, sha256: and 64 digits, signed: and 40 digits, {KERNELS}, {ANY}",
                hint="until it is corrected, no container kernel starts",
            )


def match_path(real_path: str, pattern: str, *, home: str, user: str) -> bool:
    """Say whether a path without links is what `pattern` names, or lies below it.

    pattern: absolute, `~` for `home` and `{username}` for `user`, globs within single names. The part of it before the first glob
    may contain links.
    """
    if pattern == ANY:
        return True
    filled = pattern.replace("{username}", user)
    if filled == "~" or filled.startswith("~/"):
        filled = home + filled[1:]
    if not filled.startswith("/"):
        return False
    wanted = _split(_resolve_beginning(filled))
    given = _split(real_path)
    return len(given) >= len(wanted) and all(
        fnmatch.fnmatchcase(name, glob) for name, glob in zip(given, wanted, strict=False)
    )


def match_uri(uri: str, prefix: str) -> bool:
    """Say whether `uri` lies below `prefix`: docker://host/lab admits docker://host/lab/x:1 and not docker://host/lab-2."""
    base = prefix.rstrip("/")
    if not _URI.fullmatch(base) or not uri.startswith(base):
        return False
    rest = uri[len(base) :]
    return ".." not in uri and "//" not in rest and _URI_REST.fullmatch(rest) is not None


def match_name(name: str, pattern: str) -> bool:
    """Say whether `pattern`, NAME or PREFIX_*, covers `name`, which may itself be a PREFIX_*."""
    if pattern.endswith("*"):
        return name.startswith(pattern[:-1])
    return name == pattern


def _resolve_beginning(pattern: str) -> str:
    names = _split(pattern)
    count = next((i for i, name in enumerate(names) if _GLOB.search(name)), len(names))
    beginning = os.path.realpath("/" + "/".join(names[:count]))
    return "/".join([beginning.rstrip("/"), *names[count:]])


def _split(path: str) -> list[str]:
    return [name for name in path.split("/") if name]
