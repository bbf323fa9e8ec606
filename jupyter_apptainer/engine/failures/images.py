"""Failures of images, binds, instances, and programs in an image."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from ... import errors as e
from .rule import Rule, build_row


def _advise_search_program(words: Mapping[str, str]) -> str:
    if words["subject"].startswith("instance://"):
        # Said also where the program that mounted the image has died: then nothing at all can be found.
        return "if other programs are not found either, the instance is broken: stop it and start a new one"
    return f"see what there is: `apptainer exec {shlex.quote(words['subject'])} sh -c 'ls /usr/bin /usr/local/bin'`"


ROWS: tuple[Rule, ...] = (
    build_row(
        "image-blocks",
        r"(?:read|open|exec|fork/exec) (?P<file>[^\s:]+): input/output error",
        e.ImageCorrupt,
        "the image {subject} is damaged: {file} in it cannot be read",
    ),
    build_row(
        "image-cut",
        r"Something went wrong trying to read the squashfs image",
        e.ImageCorrupt,
        "the image {subject} is damaged or was not copied to its end",
        "compare its size with the original's, then fetch or build it again",
    ),
    build_row(
        "image-superblock",
        r"not a valid squashfs image|contains a bad superblock",
        e.ImageCorrupt,
        "the image {subject} is damaged: its file system has no valid beginning",
    ),
    build_row(
        "image-header",
        r"could not open image (?P<path>.+?): (?:reading|while reading|loading) \w+: (?:unexpected )?EOF",
        e.ImageCorrupt,
        "the image {path} was cut off in its header",
    ),
    build_row(
        "image-missing",
        r"(?:open image (?P<path>.+?): )?failed to retrieve path for (?P<real>.+?): (?:lstat|stat|open) .*"
        r"no such file or directory",
        e.ImageNotFound,
        "the image {real} does not exist",
        "check the path: `ls -l {real}`; or fetch the image first: `apptainer pull {real} docker://NAME`",
    ),
    build_row(
        "image-unreadable",
        r"open image (?P<path>.+?): .*(?:permission denied|is not readable by the current user)",
        e.ImageNotFound,
        "the image {path} cannot be read by this user",
        "ask its owner: `chmod a+r {path}`, and `a+x` on the folders above it",
    ),
    build_row(
        "image-junk",
        r"(?:open image (?P<path>.+?)(?: for verification)?: |conveyor failed to get: )image format not recognized"
        r"|invalid SIF magic",
        e.ImageInvalid,
        "{path} is not an image",
    ),
    build_row(
        "bind-missing",
        r"mount source (?P<path>.+?) doesn't exist",
        e.BindSourceNotFound,
        "the folder {path}, which was to be bound, does not exist",
        "`mkdir -p {path}`, or remove the bind",
    ),
    build_row(
        "bind-syntax",
        r"while (?:getting bind path: bad bind syntax|parsing mount) (?P<path>\".*?\")(?P<why>.*)",
        e.BindInvalid,
        "the bind {path} cannot be understood",
    ),
    build_row(
        "bind-relative",
        r"(?:unable to add|could not bind scratch directory) (?P<path>.+?) (?:to mount list|into container)"
        r": destination must be an absolute path",
        e.BindInvalid,
        "the bind of {path} has a destination that does not begin with a slash",
    ),
    build_row(
        "bind-kind",
        r"while mounting (?P<path>.+?): could not mount .+?: (?P<why>not a directory|is a directory)",
        e.BindInvalid,
        "{path} cannot be bound there: one side is a file and the other a folder",
    ),
    build_row(
        "mount-point-missing",
        r"destination (?P<path>.+?) doesn't exist in container",
        e.BindInvalid,
        "the folder {path} does not exist in {subject}, so nothing can be mounted there",
        "create it in the image; a folder without it is probably no unpacked image at all",
    ),
    build_row(
        "instance-exists",
        r"instance (?P<name>\S+) already exists",
        e.InstanceExists,
        "an instance named {name} is running already",
        "choose another name, or end it: `apptainer instance stop {name}`",
    ),
    build_row(
        "instance-name",
        r"while checking instance name: (?P<name>.*) is not a valid instance name|(?P<other>\S+) is not a valid instance name",
        e.InstanceNameInvalid,
        "{name!r} cannot be the name of an instance",
    ),
    build_row(
        "instance-gone",
        r"no instance found(?: with name (?P<name>\S+))?"
        r"|could not open proc directory /proc/\d+"
        r"|orphaned \(or faked\) instance process",
        e.InstanceNotFound,
        "no such instance is running: {name}",
        "see which are: `apptainer instance list`",
    ),
    build_row(
        "program-in-path",
        r'"(?P<program>[^"\n]+)": executable file not found in \$PATH',
        e.ProgramNotFound,
        "there is no program {program} in {subject}",
        _advise_search_program,
    ),
    build_row(
        "program-path",
        r"FATAL *:? +(?:\[.*?\(\) +)?stat (?P<program>.+?): no such file or directory",
        e.ProgramNotFound,
        "there is no program {program} in {subject}",
        _advise_search_program,
    ),
    build_row(
        "program-of-script",
        r"exec: (?P<program>[^:\s\"]+): not found",
        e.ProgramNotFound,
        "there is no program {program} in {subject}",
        _advise_search_program,
        where="anywhere",
    ),
    build_row(
        "working-directory",
        r"failed to set working directory: chdir (?P<path>.+?): (?P<why>.+)",
        e.CommandError,
        "the folder {path} cannot be the working directory in the container: {why}",
        "bind it: `--bind {path}`",
    ),
)
