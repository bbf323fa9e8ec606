"""The grammar of each field of a kernel's configuration: how it is read, written, and described in the JSON schema.

One row of `FIELDS` for each field of `ContainerSpec`; `spec` puts them together. Readers never raise: they note what is
wrong in a `Problems`, so that one error can name it all.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..engine.command import REDACTED, is_secret_name
from ..errors import SpecError
from ..overlays.size import DEFAULT_MIB
from ..rules import BRIDGES
from .resource_field import RESOURCES_SCHEMA, parse_resources, write_resources
from .wishes import BindWish, OverlayWish

URI_SCHEMES = ("docker", "oras", "library")
PLACEHOLDER = "{connection_file}"

# The same patterns judge in the schema; they use what Python and ECMAScript have in common.
_PLAIN = r"[^\x00\n]"
_WORD = r"(?:\\.|[^:\\\x00\n])"
_NO_URI = r"(?![A-Za-z][A-Za-z0-9+.-]*://)"
_FILE = rf"(?!@sha256:)(?!.*@sha256:(?![0-9a-f]{{64}}$)){_PLAIN}+"
IMAGE_PATTERN = rf"^(?:(?:{'|'.join(URI_SCHEMES)})://{_PLAIN}+|{_NO_URI}{_FILE})$"
BIND_PATTERN = rf"^{_WORD}+(?::/{_WORD}*(?::(?:ro|rw))?)?$"
# At least 64 MiB, the engine's minimum.
_AUTO = r"auto(?::notebook)?(?::(?:[1-9][0-9]{2,}|6[4-9]|[7-9][0-9]))?"
OVERLAY_PATTERN = rf"^(?:tmpfs|{_AUTO}|(?!(?:tmpfs|auto)(?::|$)){_WORD}+(?::ro)?)$"
HOME_PATTERN = rf"^(?:host|none|[/~$.]{_PLAIN}*)$"
INHERIT_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*\*?$"
NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
INSTANCE_PATTERN = r"^(?:kernel|shared:[A-Za-z0-9][A-Za-z0-9_-]{0,31})$"
MODULE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*$"
PERSIST_PATTERN = r"^[1-9][0-9]{0,5}[smhd]$"

_URI = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_SHOWN_CHARACTERS = 100

# Fields of later versions, with the values that ask for nothing.
UNBUILT: Mapping[str, tuple[object, ...]] = {
    "scheduler": (None,),
}


class Problems:
    """What is wrong with a configuration, one line each."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, path: str, value: object, expected: str) -> None:
        """Note that `value` of the field at `path` is not what was expected."""
        self.lines.append(f"{path}: {_show(path, value)}, expected {expected}")

    def add_missing(self, path: str, expected: str) -> None:
        """Note that a field is not there."""
        self.lines.append(f"{path}: missing, expected {expected}")

    def add_unknown(self, path: str, value: object, known: Sequence[str]) -> None:
        """Note a field that does not exist, with the nearest one that does."""
        near = difflib.get_close_matches(path, known, n=1)
        expected = f"{near[0]} (unknown field)" if near else f"one of the fields {', '.join(known)}"
        self.lines.append(f"{path}: {_show(path, value)}, expected {expected}")

    def to_error(self, origin: str) -> SpecError:
        """Return the error that says it all."""
        if len(self.lines) == 1:
            return SpecError(f"{origin} is wrong: {self.lines[0]}", hint=_HINT)
        listing = "\n".join(f"  {line}" for line in self.lines)
        return SpecError(f"{origin} has {len(self.lines)} wrong fields:\n{listing}", hint=_HINT)


_HINT = "`jupyter apptainer kernel add --help` describes the fields; `jupyter apptainer kernel edit NAME` changes them"

Parse = Callable[[str, object, Problems], Any]


@dataclass(frozen=True)
class FieldRow:
    """One field: `parse` reads a JSON value, `write` makes one, `schema` and `description` tell others about it."""

    description: str
    schema: Mapping[str, object]
    parse: Parse
    write: Callable[[Any], object] = lambda value: value


def is_uri(image: str) -> bool:
    """Say whether an image is named by a URI and not by a path."""
    return bool(_URI.match(image))


def split_digest(image: str) -> tuple[str, str | None]:
    """Split `PATH@sha256:DIGEST` into both; the digest of a URI is the registry's, and stays in it."""
    path, mark, digest = image.rpartition("@sha256:")
    return (path, digest) if mark and not is_uri(image) else (image, None)


def split_words(text: str) -> list[str]:
    r"""Split at colons; `\:` is a colon within a word and `\\` a backslash."""
    parts = [""]
    position = 0
    while position < len(text):
        char = text[position]
        if char == "\\" and text[position + 1 : position + 2] in (":", "\\"):
            position += 1
            parts[-1] += text[position]
        elif char == ":":
            parts.append("")
        else:
            parts[-1] += char
        position += 1
    return parts


def join_words(*words: str) -> str:
    """The reverse of `split_words`."""
    return ":".join(word.replace("\\", "\\\\").replace(":", "\\:") for word in words)


def parse_bind(path: str, value: object, problems: Problems) -> BindWish | None:
    """Read `SRC[:DEST[:ro|rw]]`."""
    expected = r"SRC, SRC:DEST or SRC:DEST:ro with an absolute DEST (a colon within a path is written \:)"
    if not isinstance(value, str) or not re.fullmatch(BIND_PATTERN, value):
        problems.add(path, value, expected)
        return None
    source, *rest = split_words(value)
    return BindWish(source, rest[0] if rest else None, "ro" if rest[1:] == ["ro"] else "rw")


def format_bind(bind: BindWish) -> str:
    """Write a bind as `parse_bind` reads it."""
    if bind.mode == "ro":
        return join_words(bind.source, bind.destination or bind.source, "ro")
    return join_words(bind.source, *([bind.destination] if bind.destination else []))


def parse_overlay(path: str, value: object, problems: Problems) -> OverlayWish | None:
    """Read `FILE[:ro]`, `auto[:notebook][:SIZE_MIB]` or `tmpfs`."""
    if not isinstance(value, str) or not re.fullmatch(OVERLAY_PATTERN, value):
        expected = (
            r"FILE, FILE:ro, auto[:notebook][:SIZE_MIB] (64 or more) or tmpfs (a colon within a path is written \:)"
        )
        problems.add(path, value, expected)
        return None
    first, *rest = split_words(value)
    if first == "tmpfs":
        return OverlayWish("tmpfs")
    if first == "auto":
        size_mib = int(rest[-1]) if rest and rest[-1].isdigit() else DEFAULT_MIB
        return OverlayWish("auto", per="notebook" if "notebook" in rest else "kernel", size_mib=size_mib)
    return OverlayWish("file", first, is_read_only=bool(rest))


def format_overlay(overlay: OverlayWish) -> str:
    """Write an overlay as `parse_overlay` reads it."""
    match overlay.kind:
        case "tmpfs":
            return "tmpfs"
        case "auto":
            words = ["notebook"] if overlay.per == "notebook" else []
            words += [str(overlay.size_mib)] if overlay.size_mib != DEFAULT_MIB else []
            return ":".join(["auto", *words])
        case "file":
            return join_words(overlay.path, "ro") if overlay.is_read_only else join_words(overlay.path)


def _show(path: str, value: object) -> str:
    name = path.removeprefix("env.")
    if name != path and is_secret_name(name):
        return REDACTED
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _parse_image(path: str, value: object, problems: Problems) -> str:
    if isinstance(value, str) and re.fullmatch(IMAGE_PATTERN, value):
        return value
    expected = "the path of a .sif file or of a sandbox folder, or a URI docker://, oras:// or library://"
    if isinstance(value, str) and "@sha256:" in value and not is_uri(value):
        expected = "@sha256: and 64 digits of 0-9 and a-f at the end of a path"
    problems.add(path, value, expected)
    return ""


def _parse_nv(path: str, value: object, problems: Problems) -> object:
    if value != "auto" and not isinstance(value, bool):
        problems.add(path, value, '"auto", true or false')
    return value


def _parse_flag(path: str, value: object, problems: Problems) -> object:
    if not isinstance(value, bool):
        problems.add(path, value, "true or false")
    return value


def _choice(*choices: str) -> Parse:
    def parse(path: str, value: object, problems: Problems) -> object:
        if value not in choices:
            problems.add(path, value, " or ".join(f'"{choice}"' for choice in choices))
        return value

    return parse


def _parse_home(path: str, value: object, problems: Problems) -> object:
    if not isinstance(value, str) or not re.fullmatch(HOME_PATTERN, value):
        problems.add(path, value, '"host", "none", or a folder that begins with /, ~, $ or .')
    return value


def _parse_env(path: str, value: object, problems: Problems) -> dict[str, str]:
    if not isinstance(value, Mapping):
        problems.add(path, value, 'an object of names and values, as in {"OMP_NUM_THREADS": "4"}')
        return {}
    for name, content in value.items():
        if not re.fullmatch(NAME_PATTERN, str(name)):
            problems.add(f"{path}.{name}", content, "a name of letters, digits and underscores, not a digit first")
        elif isinstance(content, bool | int | float):
            quoted = json.dumps(json.dumps(content))
            problems.add(f"{path}.{name}", content, f"a string: quote it, {quoted}")
        elif not isinstance(content, str) or "\0" in content:
            problems.add(f"{path}.{name}", content, "a string without null characters")
    return dict(value)


def _list_of(parse_item: Callable[[str, object, Problems], Any]) -> Parse:
    def parse(path: str, value: object, problems: Problems) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            problems.add(path, value, "a list")
            return ()
        return tuple(parse_item(f"{path}[{index}]", item, problems) for index, item in enumerate(value))

    return parse


def _parse_word(path: str, value: object, problems: Problems) -> object:
    if not isinstance(value, str) or "\0" in value:
        problems.add(path, value, "a string without null characters")
    return value


def _parse_module(path: str, value: object, problems: Problems) -> object:
    if not isinstance(value, str) or not re.fullmatch(MODULE_PATTERN, value):
        problems.add(path, value, "the name of a Python module, as in numpy or matplotlib.pyplot")
    return value


def _parse_inherited(path: str, value: object, problems: Problems) -> object:
    if not isinstance(value, str) or not re.fullmatch(INHERIT_PATTERN, value):
        problems.add(path, value, "the name of a variable, or the beginning of names and a star: PREFIX_*")
    return value


def _parse_overlays(path: str, value: object, problems: Problems) -> tuple[OverlayWish | None, ...]:
    overlays: tuple[OverlayWish | None, ...] = _list_of(parse_overlay)(path, value, problems)
    if sum(overlay is not None and not overlay.is_read_only for overlay in overlays) > 1:
        problems.add(path, value, "at most one overlay that can be written to: add :ro to the others")
    return overlays


def _parse_command(path: str, value: object, problems: Problems) -> tuple[object, ...]:
    before = len(problems.lines)
    words: tuple[object, ...] = _list_of(_parse_word)(path, value, problems)
    if len(problems.lines) > before:
        return words
    if not words or not words[0] or not any(PLACEHOLDER in str(word) for word in words):
        problems.add(path, value, f"a program and its arguments, one of which contains {PLACEHOLDER}")
    return words


def _parse_instance(path: str, value: object, problems: Problems) -> object:
    if not isinstance(value, str) or not re.fullmatch(INSTANCE_PATTERN, value):
        problems.add(path, value, '"kernel", or "shared:NAME" with a NAME of at most 32 letters, digits, - and _')
    return value


_SECONDS: Mapping[str, int] = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def _parse_persist(path: str, value: object, problems: Problems) -> object:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or not re.fullmatch(PERSIST_PATTERN, value):
        problems.add(path, value, 'true, false, or a time such as "8h": a number and s, m, h or d')
        return False
    return int(value[:-1]) * _SECONDS[value[-1]]


def format_persist(persist: bool | int) -> bool | str:
    """Write it as the configuration has it: in the largest unit that divides it."""
    if isinstance(persist, bool):
        return persist
    unit = next(unit for unit, seconds in _SECONDS.items() if persist % seconds == 0)
    return f"{persist // _SECONDS[unit]}{unit}"


def _parse_extra_flags(path: str, value: object, problems: Problems) -> tuple[object, ...]:
    flags: tuple[object, ...] = _list_of(_parse_word)(path, value, problems)
    if flags and isinstance(flags[0], str) and not flags[0].startswith("-"):
        problems.add(f"{path}[0]", flags[0], "a flag, beginning with a dash")
    return flags


_WORDS: Mapping[str, object] = {"type": "string", "pattern": r"^[^\x00]*$"}

FIELDS: Mapping[str, FieldRow] = {
    "image": FieldRow(
        "The image: path of a .sif file or sandbox folder (~, $VAR; relative to the kernel.json), @sha256:DIGEST behind it to have "
        "the file checked; or the URI of an image that `jupyter apptainer image pull` has fetched. A URI is never pulled at a start.",
        {"type": "string", "pattern": IMAGE_PATTERN},
        _parse_image,
    ),
    "nv": FieldRow(
        "NVIDIA GPUs in the container; auto: where this machine has one.", {"enum": ["auto", True, False]}, _parse_nv
    ),
    "rocm": FieldRow("AMD GPUs in the container.", {"type": "boolean"}, _parse_flag),
    "binds": FieldRow(
        r"Host paths to see in the container, SRC[:DEST[:ro|rw]]; a colon within a path is written \:.",
        {"type": "array", "items": {"type": "string", "pattern": BIND_PATTERN}},
        _list_of(parse_bind),
        lambda binds: [format_bind(bind) for bind in binds],
    ),
    "overlays": FieldRow(
        "Layers above the image: FILE, FILE:ro, auto[:notebook][:SIZE_MIB] (a file of its own for this kernel, or for each "
        "notebook), or tmpfs (in memory); at most one can be written to.",
        {
            "type": "array",
            "items": {"type": "string", "pattern": OVERLAY_PATTERN},
            "contains": {"not": {"pattern": ":ro$"}},
            "minContains": 0,
            "maxContains": 1,
        },
        _parse_overlays,
        lambda overlays: [format_overlay(overlay) for overlay in overlays],
    ),
    "env": FieldRow(
        "Variables of the kernel, by name; values arrive as they are.",
        {"type": "object", "propertyNames": {"pattern": NAME_PATTERN}, "additionalProperties": _WORDS},
        _parse_env,
        dict,
    ),
    "inherit_env": FieldRow(
        "Variables taken over from the server besides the usual ones: NAME or PREFIX_*.",
        {"type": "array", "items": {"type": "string", "pattern": INHERIT_PATTERN}},
        _list_of(_parse_inherited),
        list,
    ),
    "home": FieldRow(
        "The home folder in the container: host (your own), none (an empty one that goes with the kernel), or a folder of the host.",
        {"type": "string", "pattern": HOME_PATTERN},
        _parse_home,
    ),
    "isolation": FieldRow(
        "How much of the host is hidden: default, contain (home and devices too), or containall (and IPC).",
        {"enum": ["default", "contain", "containall"]},
        _choice("default", "contain", "containall"),
    ),
    "command": FieldRow(
        f"Program of the image that is the kernel, and its arguments; {PLACEHOLDER} is filled in.",
        {
            "type": "array",
            "items": _WORDS,
            "prefixItems": [{"minLength": 1}],
            "contains": {"type": "string", "pattern": r"\{connection_file\}"},
        },
        _parse_command,
        list,
    ),
    "resources": FieldRow(
        "Limits: memory (4G, 512M), cpus (2), pids (512: processes and threads).",
        RESOURCES_SCHEMA,
        parse_resources,
        write_resources,
    ),
    "network": FieldRow("host, or none for no network at all.", {"enum": ["host", "none"]}, _choice("host", "none")),
    "instance": FieldRow(
        "kernel: a container of its own; shared:NAME: one that all kernels with this NAME run in, while any of them does.",
        {"type": "string", "pattern": INSTANCE_PATTERN},
        _parse_instance,
    ),
    "persist": FieldRow(
        "Whether the kernel outlives its server and waits for a new one: false, true, or for how long, as in 8h (s, m, h, d).",
        {"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": PERSIST_PATTERN}]},
        _parse_persist,
        format_persist,
    ),
    "preload": FieldRow(
        "Modules that are imported once in the container, before its first kernel, so that each kernel starts with them loaded.",
        {"type": "array", "items": {"type": "string", "pattern": MODULE_PATTERN}},
        _list_of(_parse_module),
        list,
    ),
    "bridge": FieldRow(
        "What `%apptainer` in the kernel may ask of the host: off (nothing), read (listings, status, help), or full (all that you may do "
        "there, so that the container is no security boundary).",
        {"enum": list(reversed(BRIDGES))},
        _choice(*reversed(BRIDGES)),
    ),
    "extra_flags": FieldRow(
        "Further flags for the engine's `instance start`, each word as typed.",
        {"type": "array", "items": _WORDS, "prefixItems": [{"pattern": "^-"}]},
        _parse_extra_flags,
        list,
    ),
}
