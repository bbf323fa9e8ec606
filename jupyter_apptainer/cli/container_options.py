"""Words of the command line that describe a container, for `kernel add` and `kernel edit`, and the configuration they make.

Paths are made absolute here, because a shell's folder means nothing to the server that starts the kernel later.
"""

from __future__ import annotations

import argparse
import os
import shlex
from contextlib import suppress

from ..errors import SpecError
from ..kernels.fields import FIELDS, is_uri, join_words, split_words

_BOOLEANS = {"true": True, "false": False}
_NV = {"auto": "auto", "true": True, "false": False}


def add_container_options(parser: argparse.ArgumentParser) -> None:
    """Add the options; all of them are None where they are not given."""
    group = parser.add_argument_group("the container")
    group.add_argument("--nv", choices=[*_NV], help=FIELDS["nv"].description)
    group.add_argument("--rocm", action=argparse.BooleanOptionalAction, help=FIELDS["rocm"].description)
    group.add_argument("-B", "--bind", action="append", metavar="SRC[:DEST[:ro|rw]]", help=FIELDS["binds"].description)
    group.add_argument(
        "--overlay", action="append", metavar="FILE[:ro]|auto|tmpfs", help=FIELDS["overlays"].description
    )
    group.add_argument("--env", action="append", metavar="NAME=VALUE", help=FIELDS["env"].description)
    group.add_argument(
        "--inherit-env", action="append", metavar="NAME|PREFIX_*", help=FIELDS["inherit_env"].description
    )
    group.add_argument("--home", metavar="host|none|DIR", help=FIELDS["home"].description)
    group.add_argument(
        "--isolation", choices=["default", "contain", "containall"], help=FIELDS["isolation"].description
    )
    group.add_argument("--memory", metavar="SIZE", help="limit of the kernel's memory, as in 4G or 512M")
    group.add_argument("--cpus", metavar="N", help="number of processors that the kernel may use, as in 2")
    group.add_argument("--pids", metavar="N", help="limit of the kernel's processes and threads, as in 512")
    group.add_argument("--network", choices=["host", "none"], help=FIELDS["network"].description)
    group.add_argument("--instance", metavar="kernel|shared:NAME", help=FIELDS["instance"].description)
    group.add_argument("--persist", metavar="TIME|true|false", help=FIELDS["persist"].description)
    group.add_argument("--preload", action="append", metavar="MODULE", help=FIELDS["preload"].description)
    group.add_argument("--bridge", choices=["off", "read", "full"], help=FIELDS["bridge"].description)
    group.add_argument(
        "--command", metavar="WORDS", help=FIELDS["command"].description + " All words in one pair of quotes."
    )
    group.add_argument(
        "--extra-flag",
        action="append",
        metavar="FLAG",
        help=FIELDS["extra_flags"].description + " Written with an equals sign: --extra-flag=--fakeroot",
    )


def build_config(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the fields that were given. Raises SpecError for an `--env` or a `--command` that cannot be read."""
    config: dict[str, object] = {}
    if arguments.image is not None:
        config["image"] = make_absolute(arguments.image)
    if arguments.nv is not None:
        config["nv"] = _NV[arguments.nv]
    if arguments.rocm is not None:
        config["rocm"] = arguments.rocm
    if arguments.bind is not None:
        config["binds"] = [_make_first_absolute(bind) for bind in arguments.bind]
    if arguments.overlay is not None:
        config["overlays"] = [_make_first_absolute(overlay, plain=("tmpfs", "auto")) for overlay in arguments.overlay]
    if arguments.env is not None:
        config["env"] = dict(_split_env(word) for word in arguments.env)
    if arguments.home is not None:
        config["home"] = arguments.home if arguments.home in ("host", "none") else make_absolute(arguments.home)
    limits = {name: getattr(arguments, name) for name in ("cpus", "memory", "pids")}
    if any(limit is not None for limit in limits.values()):
        config["resources"] = {name: _read_number(limit) for name, limit in limits.items() if limit is not None}
    if arguments.command is not None:
        config["command"] = _split_command(arguments.command)
    for option, field in (("inherit_env", "inherit_env"), ("preload", "preload"), ("extra_flag", "extra_flags")):
        if getattr(arguments, option) is not None:
            config[field] = getattr(arguments, option)
    if arguments.persist is not None:
        config["persist"] = _BOOLEANS.get(arguments.persist, arguments.persist)
    for field in ("isolation", "network", "instance", "bridge"):
        if getattr(arguments, field) is not None:
            config[field] = getattr(arguments, field)
    return config


def make_absolute(path: str) -> str:
    """Return an absolute path; URIs, and paths that are filled in at the start (`~`, `$VAR`), stay as they are."""
    if not path or is_uri(path) or path.startswith(("~", "$")):
        return path
    return os.path.abspath(path)


def _make_first_absolute(text: str, plain: tuple[str, ...] = ()) -> str:
    first, *rest = split_words(text)
    return text if first in plain else join_words(make_absolute(first), *rest)


def _split_env(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals:
        raise SpecError(
            f"--env {word!r} has no value, expected NAME=VALUE", hint=f"`--inherit-env {name}` takes the server's"
        )
    return name, value


def _read_number(word: str) -> object:
    """A number where it is one; anything else is the field's to judge."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(word)
    return word


def _split_command(words: str) -> list[str]:
    try:
        return shlex.split(words)
    except ValueError as error:
        raise SpecError(f"--command {words!r} cannot be split into words: {error}") from error
