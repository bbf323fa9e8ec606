"""The images of this user: what lies in configured folders and what kernels name, with what each says about itself.

Nothing is started, and each file is read once: the answer is kept by the identity of the file. Which Python and ipykernel an image has,
the names of its files tell; where a kernel has been checked or started with it, that one's answer counts.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..errors import ApptainerError, ImageNotFound
from ..places import Places, make_private_dir, write_private_file
from .content import ImageContent, read_content
from .find_python import find_python
from .identity import ImageIdentity, check_image
from .probe import ImageProbe, load_known_probes
from .records import find_pulled, find_record
from .reference import parse_reference
from .sif import Signature

_FORMAT = 3
_MAX_ENTRIES = 10_000
_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")


@dataclass(frozen=True)
class Image:
    """One image. pulled_from, digest: its name elsewhere, where it was pulled. probe: None where no kernel asked it yet.

    problem: why it cannot be used, as a sentence; then there is no content.
    """

    path: str
    kind: str
    size_bytes: int
    modified_at: float
    content: ImageContent
    pulled_from: str | None = None
    digest: str | None = None
    probe: ImageProbe | None = None
    problem: str | None = None

    @property
    def origin(self) -> str | None:
        """Where it came from: its name in a registry, else what it was built from."""
        return self.pulled_from or self.content.origin

    @property
    def python(self) -> str | None:
        """The version of its Python."""
        return self.probe.python_version if self.probe else self.content.python

    @property
    def ipykernel(self) -> str | None:
        """The version of that Python's ipykernel."""
        return self.probe.ipykernel if self.probe else self.content.ipykernel

    def to_json(self) -> dict[str, object]:
        """For programs; dates are seconds since 1970."""
        return {
            "path": self.path,
            "kind": self.kind,
            "size_bytes": self.size_bytes,
            "modified_at": self.modified_at,
            "origin": self.origin,
            "pulled_from": self.pulled_from,
            "digest": self.digest,
            "problem": self.problem,
            **{
                field.name: getattr(self.content, field.name)
                for field in fields(ImageContent)
                if field.name != "origin"
            },
            "signatures": [asdict(signature) for signature in self.content.signatures],
            "python": self.python,
            "ipykernel": self.ipykernel,
        }


@dataclass(frozen=True)
class Difference:
    """One thing in which two images differ."""

    topic: str
    first: object
    second: object


def find_image_dirs(places: Places, configured: Iterable[str], environ: Mapping[str, str]) -> list[Path]:
    """Return the folders for images, ours last. One that names a variable that is not set is left out."""
    found = [*(_fill(text, environ) for text in configured), str(places.images)]
    return [Path(path) for path in dict.fromkeys(found) if os.path.isabs(path)]


def _fill(text: str, environ: Mapping[str, str]) -> str:
    """Fill in `~`, `$NAME` and `${NAME}`; an empty text where a variable is not set."""
    home = environ.get("HOME") or str(Path.home())
    text = home + text[1:] if text == "~" or text.startswith("~/") else text
    names = [plain or braced for plain, braced in _VARIABLE.findall(text)]
    if not all(environ.get(name) for name in names):
        return ""
    return _VARIABLE.sub(lambda match: environ[match[1] or match[2]], text)


def list_images(places: Places, folders: Iterable[Path], named: Iterable[str] = ()) -> list[Image]:
    """Return all images in the folders, and those that kernels name, by path.

    named: paths; one that is not there or no image is listed with its problem.
    """
    probes = load_known_probes(places)
    paths: dict[str, str] = {}
    for path in (path for folder in folders for path in _iter_candidates(folder)):
        paths.setdefault(os.path.realpath(path), path)
    for path in named:
        paths.setdefault(os.path.realpath(path), path)
    images = (_describe(places, path, probes) for path in paths.values())
    return sorted(images, key=lambda image: image.path)


def load_image(places: Places, path: str) -> Image:
    """Describe one image. Raises ImageNotFound, ImageInvalid or ImageCorrupt."""
    identity = check_image(path)
    return _build(places, identity, _load_content(places, identity), load_known_probes(places))


def find_image(places: Places, name: str) -> str:
    """Return the path of what a person calls an image: a path, or the name of one that was pulled. Raises ImageNotFound."""
    try:
        reference = parse_reference(name)
    except ValueError:
        return os.path.abspath(os.path.expanduser(name))
    if reference.scheme == "localimage":
        return os.path.abspath(os.path.expanduser(reference.rest))
    record = find_pulled(places, name)
    if record is None:
        raise ImageNotFound(
            f"{reference.uri} is not on this machine", hint=f"fetch it: `jupyter apptainer image pull {name}`"
        )
    return record.path


def compare_images(first: Image, second: Image) -> list[Difference]:
    """Return what two images say differently about themselves. What is in their files is not compared."""
    topics: list[tuple[str, object, object]] = [
        ("size_bytes", first.size_bytes, second.size_bytes),
        ("origin", first.origin, second.origin),
        ("digest", first.digest, second.digest),
        ("python", first.python, second.python),
        ("ipykernel", first.ipykernel, second.ipykernel),
    ]
    for name in (
        "architecture",
        "created_at",
        "compression",
        "block_bytes",
        "apps",
        "runscript",
        "startscript",
        "environment",
        "help",
    ):
        topics.append((name, getattr(first.content, name), getattr(second.content, name)))
    keys = (
        (each.fingerprint for each in first.content.signatures),
        (each.fingerprint for each in second.content.signatures),
    )
    topics.append(("signed_by", sorted(set(keys[0])), sorted(set(keys[1]))))
    labels = first.content.labels, second.content.labels
    topics += [(f"label {name}", labels[0].get(name), labels[1].get(name)) for name in sorted({*labels[0], *labels[1]})]
    return [Difference(topic, one, other) for topic, one, other in topics if one != other]


def compare_definitions(first: Image, second: Image) -> list[str]:
    """Return the difference of the two definition files, as `diff -u` shows it."""
    one, other = ((image.content.definition or "").splitlines() for image in (first, second))
    return list(difflib.unified_diff(one, other, first.path, second.path, lineterm=""))


def find_stale_contents(places: Places) -> list[Path]:
    """Return the files in which we keep what images said that have changed or are gone."""
    return [path for path in sorted(places.contents.glob("*.json")) if not _is_current(path)]


def _iter_candidates(folder: Path) -> Iterator[str]:
    """Yield what may be an image directly in a folder: SIF and squashfs files, and unpacked images."""
    try:
        with os.scandir(folder) as entries:
            listed = [entry for entry, _ in zip(entries, range(_MAX_ENTRIES), strict=False)]
    except OSError:
        return
    for entry in sorted(listed, key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        try:
            is_image = _is_sandbox(entry.path) if entry.is_dir() else entry.is_file() and _is_image_file(entry.path)
        except OSError:
            continue
        if is_image:
            yield entry.path


def _is_sandbox(path: str) -> bool:
    return os.path.isdir(os.path.join(path, ".singularity.d"))


def _is_image_file(path: str) -> bool:
    """Ext3 files are left out: nearly all of them are overlays."""
    with open(path, "rb") as stream:
        head = stream.read(42)
    return head[32:] == b"SIF_MAGIC\0" or head.startswith(b"hsqs")


def _describe(places: Places, path: str, probes: Mapping[str, ImageProbe]) -> Image:
    try:
        identity = check_image(path)
        return _build(places, identity, _load_content(places, identity), probes)
    except ApptainerError as error:
        status = _stat(path)
        size, modified = (status.st_size, status.st_mtime) if status else (0, 0.0)
        return Image(path, "unknown", size, modified, ImageContent(), problem=error.message)


def _build(places: Places, identity: ImageIdentity, content: ImageContent, probes: Mapping[str, ImageProbe]) -> Image:
    record = find_record(places, identity.path)
    return Image(
        path=identity.path,
        kind=identity.kind,
        size_bytes=identity.size_bytes,
        modified_at=identity.mtime_ns / 1e9,
        content=content,
        pulled_from=record.uri if record else None,
        digest=(record.digest or None) if record else None,
        probe=probes.get(identity.key),
    )


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


# --- keeping


def _load_content(places: Places, identity: ImageIdentity) -> ImageContent:
    if identity.kind == "sandbox":
        # Its files change without a trace in the folder itself, and are quick to read.
        return _read(identity)
    kept = places.contents / f"{hashlib.sha256(identity.key.encode()).hexdigest()[:24]}.json"
    try:
        record = json.loads(kept.read_text(encoding="utf-8"))
        if (record["format"], record["key"]) == (_FORMAT, identity.key):
            return _parse_content(record["content"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    content = _read(identity)
    record = {"format": _FORMAT, "key": identity.key, "path": identity.path, "content": asdict(content)}
    try:
        make_private_dir(places.contents)
        write_private_file(kept, json.dumps(record))
    except OSError:
        # A cache that cannot be written only costs time.
        return content
    return content


def _read(identity: ImageIdentity) -> ImageContent:
    content = read_content(identity)
    python, ipykernel = find_python(identity, content.environment)
    return replace(content, python=python, ipykernel=ipykernel)


def _parse_content(record: dict[str, Any]) -> ImageContent:
    record |= {name: tuple(record[name]) for name in ("apps", "overlay_bytes")}
    record["signatures"] = tuple(Signature(**each) for each in record["signatures"])
    return ImageContent(**record)


def _is_current(kept: Path) -> bool:
    try:
        record = json.loads(kept.read_text(encoding="utf-8"))
        return bool(record["format"] == _FORMAT and record["key"] == check_image(record["path"]).key)
    except (OSError, ValueError, KeyError, TypeError, ApptainerError):
        return False
