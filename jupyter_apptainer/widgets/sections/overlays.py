"""Overlays: what kernels write into, how full they are, and who holds them."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ...errors import SpecError
from ...kernels.overlays import find_overlay_users
from ...overlays.size import format_bytes
from ...overlays.status import OverlayStatus, observe_overlay
from ...places import make_private_dir
from ..context import PanelContext
from ..front.model import Action, Bar, Field, Form, Row, Section, Values, Words


def load_overlays(context: PanelContext) -> Section:
    """Look at those of kernelspecs, and at those that kernels have made for themselves."""
    found = tuple(_iter_overlays(context))
    return Section(
        name="overlays",
        title="Overlays",
        caption="Layers that kernels write into",
        headings=("Overlay", "Size", "State", "Kernels"),
        rows=tuple(_build_row(context, status) for status in found),
        bars=tuple(_build_bar(status) for status in found if status.used_fraction is not None),
        notes=tuple(status.warning for status in found if status.warning),
        forms=(_create_form(context), _grow_form(context), _freeze_form(context)),
        empty="No overlay yet.",
    )


def _iter_overlays(context: PanelContext) -> Iterator[OverlayStatus]:
    users = find_overlay_users(context.places, context.environ)
    folder = context.places.overlays
    own = {str(path): () for path in sorted(folder.glob("*.img"))} if folder.is_dir() else {}
    for path, names in {**own, **users}.items():
        try:
            yield observe_overlay(path, context.places, names)
        except OSError:
            # Of somebody else's who has closed it: nothing can be said, and nothing done.
            continue


def _build_row(context: PanelContext, status: OverlayStatus) -> Row:
    is_there = status.kind != "-"
    held = f"it is in use by {status.holder}" if status.holder else "it is in use" if status.state == "in use" else ""
    missing = "" if is_there else f"it is {status.state}"
    cannot = context.obstacle or missing or held
    not_ext3 = cannot or ("" if status.kind == "ext3" else f"it is a {status.kind}, and no file that can grow")
    return Row(
        key=status.path,
        cells=(
            os.path.basename(status.path),
            format_bytes(status.size_bytes) if status.size_bytes else "-",
            status.state,
            ", ".join(status.kernels) or status.origin or "-",
        ),
        actions=(
            Action(label="Info", words=("overlay", "info", status.path), reason=missing, is_reading=True),
            Action(label="Check", words=("overlay", "check", status.path), reason=not_ext3),
            Action(
                label="Remove",
                words=("overlay", "remove", "--yes", status.path),
                reason=cannot,
                question=f"Delete {status.path} and all that is in it?",
            ),
        ),
        facts=(("file", status.path), ("image", status.image or "-"), ("held by", status.holder or "-")),
        reasons={"Grow": not_ext3, "Freeze": cannot},
    )


def _build_bar(status: OverlayStatus) -> Bar:
    fraction = status.used_fraction
    size = format_bytes(status.size_bytes or 0)
    text = f"{(fraction or 0) * 100:.0f} % of {size} used"
    return Bar(label=os.path.basename(status.path), fraction=fraction, text=text)


def _create_form(context: PanelContext) -> Form:
    fields = (
        Field(name="file", label="File", hint="extra.img, in your folder for overlays; or a path"),
        Field(name="size", label="Size", default="10G", hint="it takes only what is written to it"),
    )

    def build(values: Values, _key: str) -> Words:
        path, size = _read_path(values, "file"), _read_size(values)
        if os.sep not in str(values["file"]):
            # Elsewhere it would not be found again before a kernel has it.
            path = str(make_private_dir(context.places.overlays) / os.path.basename(path))
        return ("overlay", "create", "--size", size, path)

    return Form(label="Create", fields=fields, build=build, reason=context.obstacle)


def _grow_form(context: PanelContext) -> Form:
    fields = (Field(name="size", label="By", default="2G"),)

    def build(values: Values, key: str) -> Words:
        return ("overlay", "grow", key, f"+{_read_size(values).removeprefix('+')}")

    return Form(label="Grow", fields=fields, build=build, is_for_row=True, reason=context.obstacle)


def _freeze_form(context: PanelContext) -> Form:
    fields = (
        Field(name="target", label="New file", hint="extra.sqsh, or a new image"),
        Field(name="image", label="Image", hint="for a new image: the one below the overlay; empty: a read-only layer"),
    )

    def build(values: Values, key: str) -> Words:
        image = ("--image", _read_path(values, "image")) if str(values["image"]).strip() else ()
        return ("overlay", "freeze", *image, key, _read_path(values, "target"))

    return Form(label="Freeze", fields=fields, build=build, is_for_row=True, reason=context.obstacle)


def _read_size(values: Values) -> str:
    size = str(values["size"]).strip()
    if not size or size.startswith("-"):
        raise SpecError(f"size {size!r}: expected a size such as 2G or 512M")
    return size


def _read_path(values: Values, name: str) -> str:
    text = str(values[name]).strip()
    if not text:
        raise SpecError(f"{name}: expected the path of a file")
    return os.path.abspath(os.path.expanduser(text))
