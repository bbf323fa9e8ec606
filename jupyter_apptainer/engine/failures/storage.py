"""Failures of disks and overlays."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from ... import errors as e
from ..holders import find_holders
from .rule import Rule, build_row


def _advise_holders(words: Mapping[str, str]) -> str:
    holders = find_holders(words["path"])
    if not holders:
        return "another user's process, or one on another machine, has it: use a copy, or add `:ro` everywhere"
    return "; ".join(holder.describe() for holder in holders)


def _advise_create_overlay(words: Mapping[str, str]) -> str:
    return f"create it: `jupyter apptainer overlay create {shlex.quote(words['path'])}`"


_SPACE = "look at it with `df -h`, free some space, or use a larger disk: `export APPTAINER_TMPDIR=/var/tmp`"

ROWS: tuple[Rule, ...] = (
    build_row(
        "disk-full-in-section",
        r"No space left on device(?s:.*)while running %\w+ section",
        e.DiskFull,
        "no space left on the disk while the image was built",
        _SPACE,
        where="anywhere",
    ),
    build_row(
        "disk-full",
        r"(?:\b(?:write|open|mkdir|create|error writing) '?(?P<path>[^'\n]+?)'?: )?"
        r"(?:[Nn]o space left on device|[Dd]isk quota exceeded)",
        e.DiskFull,
        "no space left on the disk that holds {path}",
        _SPACE,
    ),
    build_row(
        "config-dir",
        r"failed to create instance log files: mkdir (?P<path>.+?): (?P<why>.+)",
        e.ConfigDirUnwritable,
        "the engine's own folder {path} cannot be created: {why}",
        "make the home folder writable, or choose another: `export APPTAINER_CONFIGDIR=/var/tmp/apptainer-$USER`",
    ),
    build_row(
        "temporary-folder",
        r"temporary (?:\w+ )?(?:directory|file)\b.*: (?:mkdir|open|stat) (?P<path>.+?): (?P<why>.+)",
        e.CommandError,
        "the engine cannot write its temporary files to {path}: {why}",
        "choose a folder of yours: `export APPTAINER_TMPDIR=/var/tmp`, and unset TMPDIR",
    ),
    build_row(
        "overlay-missing",
        r"failed to open overlay image (?P<path>.+?): failed to retrieve path",
        e.OverlayNotFound,
        "the overlay {path} does not exist",
        _advise_create_overlay,
    ),
    build_row(
        "overlay-busy",
        r"can't open (?P<path>.+?) for (?:writing|reading), currently in use",
        e.OverlayBusy,
        "the overlay {path} is in use by another process",
        _advise_holders,
    ),
    build_row(
        "overlay-invalid",
        r"failed to open overlay image (?P<path>.+?): (?P<why>image format not recognized|.*super ?block.*)",
        e.ImageInvalid,
        "{path} is no overlay image: {why}",
        "make a new one: `jupyter apptainer overlay create NEWFILE`",
    ),
    build_row(
        "overlay-two",
        r"you can't specify more than one writable overlay, (?P<first>.+?) contains a writable overlay,"
        r" requires to use '--overlay (?P<path>.+?):ro'",
        e.OverlayConflict,
        "two writable overlays were given: {first} and {path}",
        "add `:ro` to one of them: `{path}:ro`",
    ),
    build_row(
        "overlay-and-tmpfs",
        r"you can't specify --writable-tmpfs with another writable overlay image \((?P<path>.+?)\)",
        e.OverlayConflict,
        "a writable tmpfs and the writable overlay {path} were given; only one can be",
        "leave out the tmpfs, or add `:ro`: `{path}:ro`",
    ),
    build_row(
        "overlay-mode",
        r"overlay upper dir failed: (?P<dir>.+?) is not writable: permission denied",
        e.OverlayModeMismatch,
        "the overlay {overlay} belongs to another mode of use: its files were made with --fakeroot and are used without, "
        "or the reverse",
        "use it as before (with or without --fakeroot), or read-only: `{overlay}:ro`",
    ),
    build_row(
        "overlay-mode-files",
        r"Value too large for defined data type",
        e.OverlayModeMismatch,
        "files in the overlay {overlay} belong to ids that this mode does not know: it was used with and without --fakeroot",
        "use it as before: with --fakeroot if it was made so",
        where="anywhere",
        only_with="--overlay",
    ),
    build_row(
        "overlay-exists",
        r"EXT3 overlay image (?P<path>.+?) already exists",
        e.OverlayCreateError,
        "the overlay {path} exists already",
        "use it, or choose another name",
    ),
    build_row(
        "overlay-small",
        r"image size must be equal or greater than (?P<size>\d+) MiB",
        e.OverlayCreateError,
        "an overlay cannot be smaller than {size} MiB",
        "`jupyter apptainer overlay create FILE` takes only the space that is used",
    ),
    build_row(
        "overlay-signed",
        r"(?P<path>\S+) is signed: could not add writable overlay",
        e.OverlayCreateError,
        "the image {path} is signed, and adding an overlay would break the signature",
        "make the overlay a file of its own: `jupyter apptainer overlay create FILE`",
    ),
    build_row(
        "overlay-create",
        r"while zero'ing overlay image (?P<path>.+?)\.ext3: .*\n?(?:Command error: (?P<why>.*))?",
        e.OverlayCreateError,
        "the overlay {path} could not be written",
        "check that the folder exists and is yours",
    ),
    build_row(
        "overlay-not-embedded",
        r"no SIF writable overlay partition found in (?P<path>.+)",
        e.OverlayNotFound,
        "the image {path} has no overlay in it, which --writable needs",
        "add one: `apptainer overlay create --size 1024 {path}`",
    ),
    build_row(
        "image-not-writable",
        r"could not use (?P<path>.+?) for writing, you don't have write permissions",
        e.OverlayReadOnly,
        "{path} was to be used with --writable, but this user may not write to it",
        "use a copy of your own, or an overlay instead: `--overlay FILE`",
    ),
    build_row(
        "overlay-unclean",
        r"Please run e2fsck -fy",
        e.OverlayUnclean,
        "the overlay {overlay} was not closed properly and must be checked first",
        "`jupyter apptainer overlay check {overlay}` while nothing uses it",
        where="anywhere",
    ),
)
