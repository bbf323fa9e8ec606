"""Runs in which the engine did its part: a program failed, or the engine went on with less than was asked."""

from __future__ import annotations

from ... import errors as e
from .rule import Rule, build_row

ROWS: tuple[Rule, ...] = (
    build_row(
        "overlay-full",
        r"[Nn]o space left on device",
        e.OverlayFull,
        "the overlay {overlay} is full",
        "make it larger while nothing uses it: `jupyter apptainer overlay grow {overlay} +1G`",
        where="anywhere",
        only_with="--overlay",
    ),
    build_row(
        "overlay-full-start",
        r"(?P<path>\S+) not writable in container",
        e.OverlayFull,
        "{path} could not be written in the container: the overlay {overlay} is probably full",
        "make it larger while nothing uses it: `jupyter apptainer overlay grow {overlay} +1G`",
        where="log",
        is_warning=True,
    ),
    build_row(
        "program-disk-full",
        r"No space left on device|Disk quota exceeded",
        e.DiskFull,
        "no space left on a disk that the container uses, while trying to {title}",
        "look at the disks as the container sees them: `df -h`",
        where="anywhere",
    ),
    build_row(
        "overlay-read-only",
        r"Overlay image (?P<path>.+?) is not writable, proceeding with read-only",
        e.OverlayReadOnly,
        "the overlay {path} cannot be written by this user, and is used read-only",
        "`chmod u+w {path}`, or say so: `{path}:ro`",
        where="log",
        is_warning=True,
    ),
    build_row(
        "read-only",
        r"Read-only file system(?:: '(?P<path>.+?)')?",
        e.ReadOnlyFilesystem,
        "a program tried to write to the image {subject}, which is read-only",
        "add an overlay: `--overlay FILE`, or `--writable-tmpfs` for one that goes away",
        where="anywhere",
    ),
    build_row(
        "overlay-unchecked",
        r"Mounting unchecked fs, running e2fsck is recommended",
        e.OverlayUnclean,
        "the overlay {overlay} was not closed properly",
        "`jupyter apptainer overlay check {overlay}` while nothing uses it",
        where="anywhere",
        is_warning=True,
    ),
    build_row(
        "squashfuse-missing",
        r"squashfuse not found, will not be able to mount SIF",
        e.FuseHelperMissing,
        "squashfuse is not installed: each start unpacks the whole image first, which takes seconds",
        "`sudo apt-get install squashfuse` or `sudo dnf install squashfuse`, or `jupyter apptainer engine install`",
        where="log",
        is_warning=True,
    ),
)
