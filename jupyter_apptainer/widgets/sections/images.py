"""The images of this account, and how to get more."""

from __future__ import annotations

import os
import re
import shlex

from ...errors import SpecError
from ...images.catalogue import Image, find_image_dirs, list_images
from ...instances.ledger import iter_entries
from ...kernels.usage import map_kernels_to_images
from ...overlays.size import format_bytes
from ...places import make_private_dir, write_private_file
from ..context import PanelContext
from ..front.model import Action, Field, Form, Row, Section, Values, Words

_HEADINGS = ("Image", "Size", "Python", "ipykernel", "Kernels", "From")
# Labels that the engine writes itself; Inspect shows them.
_ENGINES_LABELS = "org.label-schema."
_KINDS = {
    "definition file": "--def",
    "Dockerfile": "--dockerfile",
    "environment.yml": "--environment",
    "requirements.txt": "--requirements",
}


def load_images(context: PanelContext) -> Section:
    """List them. The first look at an image reads its header; nothing is started."""
    places, environ = context.places, context.environ
    kernels = map_kernels_to_images(places, environ)
    found = list_images(places, find_image_dirs(places, context.settings.image_dirs, environ), kernels.values())
    running = _find_running(context)
    return Section(
        name="images",
        title="Images",
        caption="Images in your folders and of your kernels",
        headings=_HEADINGS,
        rows=tuple(_build_row(context, image, _find_users(image, kernels), running) for image in found),
        forms=(_pull_form(context), _build_form(context), _kernel_form(context)),
        empty="No image yet: pull one, or build one.",
    )


def _find_running(context: PanelContext) -> set[str]:
    return {os.path.realpath(entry.image) for entry in iter_entries(context.places)}


def _find_users(image: Image, kernels: dict[str, str]) -> list[str]:
    real = os.path.realpath(image.path)
    return [name for name, path in kernels.items() if os.path.realpath(path) == real]


def _build_row(context: PanelContext, image: Image, users: list[str], running: set[str]) -> Row:
    reason = context.obstacle
    if not reason and os.path.realpath(image.path) in running:
        reason = "a kernel runs in it"
    elif not reason and users:
        reason = f"it is the image of the kernel {', '.join(users)}"
    definition = "" if image.content.definition else "it does not say how it was built"
    return Row(
        key=image.path,
        cells=(
            os.path.basename(image.path),
            format_bytes(image.size_bytes),
            image.python or "-",
            image.ipykernel or "-",
            ", ".join(users) or "-",
            image.problem or image.origin or "-",
        ),
        actions=(
            Action(
                label="Inspect", words=("image", "inspect", image.path), reason=image.problem or "", is_reading=True
            ),
            Action(
                label="Packages",
                words=("image", "packages", image.path),
                reason=context.obstacle or image.problem or "",
                is_reading=True,
            ),
            Action(label="Recipe", words=("image", "recipe", image.path), reason=definition, is_reading=True),
            Action(
                label="Remove",
                words=("image", "remove", "--yes", image.path),
                reason=reason,
                question=f"Delete {image.path}?",
            ),
        ),
        facts=(
            ("file", image.path),
            ("digest", image.digest or "not pulled by name"),
            *(each for each in sorted(image.content.labels.items()) if not each[0].startswith(_ENGINES_LABELS)),
        ),
        reasons={"Make a kernel": context.obstacle or image.problem or ""},
    )


def _pull_form(context: PanelContext) -> Form:
    fields = (
        Field(name="uri", label="Name", hint="docker://python:3.12-slim"),
        Field(name="out", label="File", hint="empty: NAME_TAG.sif in your image folder"),
        Field(name="plain", label="The registry speaks plain http", kind="check"),
    )

    def build(values: Values, _key: str) -> Words:
        uri = _require(values, "uri", "the image's name in a registry, such as docker://python:3.12-slim")
        out = str(values["out"]).strip()
        flags = ("--no-https",) if values["plain"] else ()
        return ("image", "pull", "--detach", *flags, uri, *((os.path.expanduser(out),) if out else ()))

    return Form(label="Pull", fields=fields, build=build, reason=context.obstacle)


def _build_form(context: PanelContext) -> Form:
    fields = (
        Field(name="kind", label="Made of a", kind="choice", options=tuple(_KINDS)),
        Field(name="recipe", label="Recipe", kind="area", hint="type or paste it here, or name a file below"),
        Field(name="path", label="or file", kind="file", hint="a recipe on this host"),
        Field(name="out", label="New image", hint="analysis.sif"),
    )

    def build(values: Values, _key: str) -> Words:
        out = os.path.abspath(os.path.expanduser(_require(values, "out", "the file of the new image")))
        path, text = str(values["path"]).strip(), str(values["recipe"])
        if bool(path) == bool(text.strip()):
            raise SpecError("give a recipe or the path of one, not both", hint="empty one of the two")
        if path and os.path.isdir(os.path.expanduser(path)):
            raise SpecError(f"{path} is a folder", hint="choose a file in it, or empty the field")
        source = os.path.abspath(os.path.expanduser(path)) if path else _keep_recipe(context, out, text)
        return ("image", "build", "--detach", out, _KINDS[str(values["kind"])], source)

    return Form(label="Build", fields=fields, build=build, reason=context.obstacle)


def _kernel_form(context: PanelContext) -> Form:
    fields = (
        Field(name="name", label="Name", hint="letters, digits, dots, dashes"),
        Field(name="options", label="Options", hint="--memory 4G --overlay auto"),
    )

    def build(values: Values, key: str) -> Words:
        name = _require(values, "name", "a name for the kernel")
        try:
            options = shlex.split(str(values["options"]))
        except ValueError as error:
            raise SpecError(f"options {values['options']!r}: {error}", hint="close the quotation marks") from error
        return ("kernel", "add", name, key, *options)

    return Form(label="Make a kernel", fields=fields, build=build, is_for_row=True, reason=context.obstacle)


def _require(values: Values, name: str, what: str) -> str:
    text = str(values[name]).strip()
    if not text or text.startswith("-"):
        raise SpecError(f"{text!r}: expected {what}")
    return text


def _keep_recipe(context: PanelContext, out: str, text: str) -> str:
    """Write what was typed to a file: the task that builds reads it, and again when it is repeated."""
    folder = make_private_dir(context.places.data / "recipes")
    name = re.sub(r"[^\w.-]", "-", os.path.splitext(os.path.basename(out))[0])
    return str(write_private_file(folder / f"{name}.recipe", text if text.endswith("\n") else text + "\n"))
