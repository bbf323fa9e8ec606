"""What a definition file says about files of this machine: sources of %files, links among them, local images."""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Iterator
from pathlib import Path

from ...errors import CommandError
from ..identity import check_image
from .definition import Definition, FileCopy, Stage
from .findings import Finding

# Enough to find a link in a source tree; a folder of data is not walked to its end.
_WALKED_ENTRIES = 20_000


def check_files(definition: Definition, folder: Path, beside: Path | None = None) -> Iterator[Finding]:
    """Yield what is missing. folder: where the engine will run, which relative paths start from.

    beside: the folder of the definition file, where people expect them to start.
    """
    for stage in definition.stages:
        yield from _check_origin(stage, folder)
        for copy in stage.iter_files():
            if not copy.stage:
                yield from _check_copy(copy, folder, beside)


def _check_origin(stage: Stage, folder: Path) -> Iterator[Finding]:
    origin = stage.get_header("from")
    if origin is None or not origin.value or "{{" in origin.value:
        return
    path = origin.value.split("#")[0].strip()
    if stage.agent == "localimage" and "://" not in path:
        try:
            check_image(str(folder / path))
        except CommandError as error:
            yield Finding(origin.line, "error", "image-missing", error.message, error.hint or "")
    elif stage.agent in ("docker-archive", "oci-archive", "oci"):
        path = path.split(":")[0]
        if not (folder / path).exists():
            yield Finding(
                origin.line, "error", "image-missing", f"there is no file {folder / path}", _near(folder / path)
            )
    elif stage.agent == "docker-daemon" and not os.path.exists("/var/run/docker.sock"):
        yield Finding(
            origin.line,
            "error",
            "local-docker",
            f"{path} would come from a Docker on this machine, and there is none",
            "where it is: `docker save -o FILE.tar IMAGE`; here: `Bootstrap: docker-archive` and `From: FILE.tar`",
        )


def _check_copy(copy: FileCopy, folder: Path, beside: Path | None) -> Iterator[Finding]:
    if "{{" in copy.source:
        return
    found = expand_source(copy.source, folder)
    if not found:
        hint = _near(folder / copy.source)
        if beside and beside != folder and expand_source(copy.source, beside):
            hint = f"it is beside the definition file, but paths start from {folder}: run the command in {beside}"
        yield Finding(copy.line, "error", "file-missing", f"%files: there is no {copy.source}", hint)
    for path in found:
        yield from _check_links(copy, path)


def expand_source(source: str, folder: Path) -> list[Path]:
    """Return the files and folders that a source of %files names."""
    pattern = os.path.join(folder, source)
    if os.path.lexists(pattern):
        return [Path(pattern)]
    # The engine lets a shell expand it, which also knows {a,b}; those are left to it.
    return [Path(pattern)] if "{" in source else [Path(name) for name in sorted(glob.glob(pattern))]


def _check_links(copy: FileCopy, path: Path) -> Iterator[Finding]:
    links: list[Path] = []
    if path.is_symlink() and not path.exists():
        yield _describe_dangling(copy, path)
    elif path.is_dir():
        links = list(_iter_links(path))
    dangling = [link for link in links if not link.exists()]
    if dangling:
        yield _describe_dangling(copy, dangling[0])
    elif links:
        first, count = links[0], len(links)
        yield Finding(
            copy.line,
            "warning",
            "links-followed",
            f"%files follows links: {count} in {copy.source}, such as {first.relative_to(path)}, become copies",
            "programs that find their files beside themselves, as in node_modules/.bin, break: pack the folder "
            "(`tar`), copy the archive, and unpack it in %post",
        )


def _describe_dangling(copy: FileCopy, link: Path) -> Finding:
    return Finding(
        copy.line,
        "error",
        "link-dangling",
        f"%files follows links, and {link} leads nowhere ({os.readlink(link)})",
        "remove the link, or copy the files beside it one by one",
    )


def _iter_links(folder: Path) -> Iterator[Path]:
    seen = 0
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            seen += 1
            path = Path(parent, name)
            if path.is_symlink():
                yield path
        if seen > _WALKED_ENTRIES:
            return


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist"
    try:
        names = sorted(os.listdir(path.parent))
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else ""
