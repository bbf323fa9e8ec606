"""Images that a notebook can mean by a name or a digest: those of the reader's container kernels and in folders that the reader named."""

from __future__ import annotations

import difflib
import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import ImageMismatch, ImageNotFound, SpecError
from ..images.digest import compute_digest, find_by_digest, shorten
from ..places import Places
from ..policy import find_user
from .fields import is_uri, split_digest
from .kernelspecs import iter_kernelspecs

_BARE_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_MAX_LISTED = 1000


@dataclass(frozen=True)
class KnownImages:
    """kernels: paths of the images of container kernels. others: image files in folders. No link is followed in either."""

    kernels: tuple[str, ...]
    others: tuple[str, ...] = ()

    def is_kernels(self, path: str) -> bool:
        """Say whether a container kernel of the reader has this image."""
        return os.path.realpath(path) in {os.path.realpath(known) for known in self.kernels}


def find_known_images(own: str, patterns: Sequence[str], environ: Mapping[str, str]) -> KnownImages:
    """List them. own: the image of the kernel that starts. patterns: the `images` of the reader's policy."""
    kernels = [own]
    for kernelspec in iter_kernelspecs():
        try:
            kernels.append(kernelspec.resolve(environ).image)
        except SpecError:
            continue
    files = tuple(dict.fromkeys(image for image in kernels if not is_uri(image)))
    return KnownImages(files, tuple(dict.fromkeys(_iter_files(patterns))))


def resolve_name(image: str, known: KnownImages, places: Places) -> tuple[str, str | None]:
    """Return path and digest of the image that `NAME`, `NAME@sha256:DIGEST` or `sha256:DIGEST` means; others come back as they are.

    Raises ImageNotFound; ImageMismatch where only the name is right; SpecError where two images have the name.
    """
    bare = _BARE_DIGEST.fullmatch(image)
    name, digest = ("", bare[1]) if bare else split_digest(image)
    if "/" in name or is_uri(image) or (not name and not digest) or name.startswith(("~", "$")) or name in (".", ".."):
        return name or image, digest
    everything = [*known.kernels, *known.others]
    named = [path for path in everything if os.path.basename(path) == name]
    if digest:
        rest = [path for path in everything if path not in named]
        return _find_digest(image, digest, named, rest, places), digest
    return _find_name(name, named, everything), None


def _find_digest(shown: str, digest: str, named: list[str], rest: list[str], places: Places) -> str:
    found = find_by_digest(digest, [*named, *rest], places)
    if found:
        return found
    if named and os.path.isfile(named[0]):
        other = shorten(compute_digest(named[0], places))
        raise ImageMismatch(
            f"the image {named[0]} is another one than the notebook asks for: its digest is {other}, not {shorten(digest)}",
            hint="get the file that the notebook was written with, and make a kernel of it: `jupyter apptainer kernel add NAME FILE`",
        )
    raise ImageNotFound(
        f"none of your images is {shown}, which the notebook asks for",
        hint="get the file, and make a kernel of it: `jupyter apptainer kernel add NAME FILE`",
    )


def _find_name(name: str, named: list[str], everything: list[str]) -> str:
    distinct = list({os.path.realpath(path): path for path in reversed(named)}.values())
    if len(distinct) > 1:
        raise SpecError(
            f"image: several images are called {name}: {', '.join(sorted(distinct))}",
            hint=f"say which in the notebook: {name}@sha256: and the digest (`sha256sum FILE`)",
        )
    if distinct:
        return distinct[0]
    near = difflib.get_close_matches(name, {os.path.basename(path) for path in everything}, n=1)
    raise ImageNotFound(
        f"none of your images is called {name}, which the notebook asks for",
        hint=f"did you mean {near[0]}?" if near else "make a kernel of it: `jupyter apptainer kernel add NAME FILE`",
    )


def _iter_files(patterns: Sequence[str]) -> Iterator[str]:
    user, home = find_user()
    for pattern in patterns:
        path = pattern.replace("{username}", user)
        path = home + path[1:] if path.startswith("~/") else path
        if path.startswith("/"):
            found = glob.glob(os.path.join(path, "*.sif") if os.path.isdir(path) else path)
            yield from sorted(found)[:_MAX_LISTED]
