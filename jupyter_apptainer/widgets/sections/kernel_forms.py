"""What can be done with a kernel that runs in a container: other settings, a folder more, and its overlay."""

from __future__ import annotations

import os

from ...errors import SpecError
from ...instances.ledger import load_entry
from ...instances.model import LedgerEntry
from ...kernels.kernelspecs import get_kernelspec
from ..context import PanelContext
from ..front.model import Field, Form, Values, Words

GROW, FREEZE = "Grow its overlay", "Freeze its overlay"
_STOPS = "The kernel is stopped for it: what is in its memory is lost. Start it again afterwards."
_THIS_NOTEBOOK = "this notebook, as far as your rules for notebooks allow it"
_ALL_NOTEBOOKS = "all notebooks of this kernel"


def build_kernel_forms(context: PanelContext) -> tuple[Form, ...]:
    """Return the forms; each is for one kernel."""
    return _change_form(context), _bind_form(context), _grow_form(context), _freeze_form(context)


def _bind_form(context: PanelContext) -> Form:
    fields = (
        Field(name="source", label="Folder", kind="folder", hint="on this host"),
        Field(name="target", label="As", hint="path inside; empty: the same"),
        Field(name="ro", label="For reading only", kind="check"),
        Field(name="now", label="Restart now: what is in the kernel's memory is lost", kind="check"),
    )

    def build(values: Values, key: str) -> Words:
        source = os.path.abspath(os.path.expanduser(str(values["source"]).strip()))
        if not os.path.exists(source) or ":" in source:
            raise SpecError(f"folder {source!r}: expected one that is there, without a colon in its name")
        target = str(values["target"]).strip() or source
        mode = ":ro" if values["ro"] else ""
        entry = _get_entry(context, key)
        kernelspec = get_kernelspec(entry.kernelspec)
        # What is given replaces what there was.
        before = kernelspec.config.get("binds")
        binds = [*(map(str, before) if isinstance(before, list) else ()), f"{source}:{target}{mode}"]
        restart = ("--restart", entry.kernel_id) if values["now"] else ()
        return ("kernel", "edit", kernelspec.name, *(word for bind in binds for word in ("--bind", bind)), *restart)

    return Form(label="Bind a folder", fields=fields, build=build, is_for_row=True)


def _change_form(context: PanelContext) -> Form:
    fields = (
        Field(name="image", label="Image", hint="empty: the same"),
        Field(name="memory", label="Memory", hint="4G; empty: as it is"),
        Field(name="nv", label="NVIDIA GPU", kind="choice", options=("as it is", "auto", "true", "false")),
        Field(name="env", label="Variable", hint="NAME=VALUE"),
        Field(name="overlay", label="Overlay", hint="FILE, auto or tmpfs; empty: as it is"),
        Field(name="scope", label="Kept for", kind="choice", options=(_THIS_NOTEBOOK, _ALL_NOTEBOOKS)),
    )

    def build(values: Values, key: str) -> Words:
        words: list[str] = []
        for name in ("image", "memory", "env", "overlay"):
            text = str(values[name]).strip()
            words += [f"--{name}", os.path.expanduser(text)] if text else []
        words += [] if values["nv"] == "as it is" else ["--nv", str(values["nv"])]
        entry = _get_entry(context, key)
        if values["scope"] == _THIS_NOTEBOOK or not words:
            return ("kernel", "restart", entry.kernel_id, *words)
        return ("kernel", "edit", get_kernelspec(entry.kernelspec).name, *words, "--restart", entry.kernel_id)

    return Form(
        label="Restart with changes",
        fields=fields,
        build=build,
        is_for_row=True,
        note="The kernel starts anew in a new container: what is in its memory is lost.",
    )


def _grow_form(context: PanelContext) -> Form:
    fields = (Field(name="size", label="By", default="2G"),)

    def build(values: Values, key: str) -> Words:
        size = str(values["size"]).strip().removeprefix("+")
        if not size or size.startswith("-"):
            raise SpecError(f"size {size!r}: expected a size such as 2G or 512M")
        return ("overlay", "grow", "--stop", _get_entry(context, key).overlays[0], f"+{size}")

    return Form(label=GROW, fields=fields, build=build, is_for_row=True, note=_STOPS)


def _freeze_form(context: PanelContext) -> Form:
    fields = (
        Field(name="target", label="New file", hint="extra.sqsh, or a new image"),
        Field(name="whole", label="A new image, of the kernel's image and the overlay", kind="check"),
    )

    def build(values: Values, key: str) -> Words:
        target = str(values["target"]).strip()
        if not target:
            raise SpecError("New file: expected the path of a file")
        entry = _get_entry(context, key)
        image = ("--image", entry.image) if values["whole"] else ()
        target = os.path.abspath(os.path.expanduser(target))
        return ("overlay", "freeze", "--stop", *image, entry.overlays[0], target)

    return Form(label=FREEZE, fields=fields, build=build, is_for_row=True, note=_STOPS)


def _get_entry(context: PanelContext, key: str) -> LedgerEntry:
    """Return a kernel that runs, by its name in the ledger. Raises SpecError."""
    entry = load_entry(context.places, key)
    if entry is None:
        raise SpecError("the kernel has ended meanwhile", hint="choose another one")
    return entry
