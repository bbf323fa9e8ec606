"""From the image that a kernel names to the file that it is here: a URI means what `jupyter apptainer image pull` brought."""

from __future__ import annotations

from dataclasses import replace

from ..errors import ImageNotFound
from ..images.records import find_pulled
from ..places import Places
from .spec import ContainerSpec, is_uri


def find_local_image(spec: ContainerSpec, places: Places) -> ContainerSpec:
    """Return `spec` with the file that was pulled from its image's name; a name that was never pulled stays."""
    record = find_pulled(places, spec.image) if is_uri(spec.image) else None
    return replace(spec, image=record.path) if record else spec


def refuse_remote_image(spec: ContainerSpec) -> None:
    """Raise ImageNotFound where the image is a name elsewhere: a start does not wait for a download."""
    if is_uri(spec.image):
        raise ImageNotFound(
            f"{spec.image} is not on this machine yet, and a kernel's start does not wait for a download",
            hint=f"fetch it once: `jupyter apptainer image pull {spec.image}`",
        )
