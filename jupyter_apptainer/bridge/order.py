"""From a request to the line that is carried out on the host, or to the error that refuses it. Nothing is started here.

Under `read` a line is one of the list in `allowed` and runs in `/`; no word of the container's becomes a path. Under `full` it runs in the
caller's folder, and the container's paths become the host's.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..engine.command import is_secret_name
from ..engine.environment import is_bending
from ..errors import BridgeError, PolicyError
from ..images.catalogue import find_image, find_image_dirs
from ..places import find_places
from .allowed import check_allowed, refuse
from .grammar import Line, read_line
from .model import BridgeSetup
from .request import Request

THIS = "instance://this"
_HARMLESS_GLOBALS = frozenset({"-q", "--quiet", "-s", "--silent", "--nocolor", "--version"})
# Behind its image come a program and its words, which are the container's own business.
_WITH_PROGRAM = frozenset({"exec", "run", "test", "shell-script"})
_FLAGS_ALONE = (
    "--nv --nvccli --rocm -c --contain -C --containall -e --cleanenv -f --fakeroot -i --ipc -p --pid --no-home --no-init --no-privs "
    "--no-umask --no-eval --writable -w --writable-tmpfs --userns -u --uts --unsquash --compat --underlay --no-https --nohttps "
    "--net -n --disable-cache --keep-privs --allow-setuid --sharens --no-pid"
)
_NO_VALUE = frozenset(_FLAGS_ALONE.split())


@dataclass(frozen=True)
class Order:
    """What is carried out: as in a cell of a kernel on the host, in the host's folder `cwd`."""

    words: tuple[str, ...]
    body: str | None
    cwd: str


def build_order(request: Request, setup: BridgeSetup) -> Order:
    """Decide what runs. Raises PolicyError for what the level does not admit, SpecError (from `grammar`) or BridgeError for what cannot be."""
    if setup.level != "full":
        return _build_reading(request, setup)
    return Order(_translate(request, setup), request.stdin, find_cwd(request, setup))


def _build_reading(request: Request, setup: BridgeSetup) -> Order:
    line = read_line(request.words)
    if request.stdin is not None or request.wanted:
        raise refuse(" ".join(line.words[:2]), setup.level, "it takes no text of a cell")
    for flag in line.globals:
        if flag not in _HARMLESS_GLOBALS:
            raise refuse(
                flag, setup.level, f"before a command these are admitted: {', '.join(sorted(_HARMLESS_GLOBALS))}"
            )
    if line.program == "engine" and line.asks_for_help:
        line = replace(line, words=("help", *line.words[:-1]))
    if line.words[:1] == ("inspect",):
        # The engine would start a program of the image, with more of the host in sight than this kernel has.
        line = Line("own", ("image", *line.words))
    if line.words or "--version" not in line.globals:
        check_allowed(line.program, line.words, setup.level)
    if line.words[:2] == ("image", "inspect"):
        words = [word if word.startswith("-") else _find_known_image(word, request, setup) for word in line.words[2:]]
        line = replace(line, words=("image", "inspect", *words))
    return Order((*line.globals, *line.words), None, "/")


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the server's variables without its tokens: a program in an image would see them. The engine's own stay."""
    return {
        name: value
        for name, value in environ.items()
        if not is_secret_name(name) or (name.startswith(("APPTAINER_", "SINGULARITY_")) and not is_bending(name))
    }


def find_cwd(request: Request, setup: BridgeSetup) -> str:
    found = setup.paths.find_host(request.cwd)
    if found is None or not os.path.isdir(found):
        raise BridgeError(
            f"the working directory {request.cwd!r} is in the image, and the host has no such folder",
            hint=f"change to the notebook's: `%cd {setup.paths.cwd}`",
        )
    return found


def _translate(request: Request, setup: BridgeSetup) -> tuple[str, ...]:
    """Return the words with the host's paths, up to the program that runs inside an image."""
    words = [f"instance://{setup.instance.name}" if word == THIS else word for word in request.words]
    last = _find_image(words) if words[:1] and words[0] in _WITH_PROGRAM else len(words)
    return tuple([translate_path(word, request.cwd, setup) for word in words[: last + 1]] + words[last + 1 :])


def _find_image(words: Sequence[str]) -> int:
    """Return the position of the image: the first word that is no flag, and no value of one."""
    for index in range(1, len(words)):
        word, previous = words[index], words[index - 1]
        may_be_value = previous.startswith("-") and "=" not in previous and previous not in _NO_VALUE
        if not word.startswith("-") and (not may_be_value or "://" in word or word.endswith(".sif")):
            return index
    return len(words)


def translate_path(word: str, cwd: str, setup: BridgeSetup) -> str:
    """Return a word with the host's path where it is an absolute path of the container that the host has under another name.

    `SRC:DEST` and `--flag=PATH` are looked into. Relative paths stay: the command runs in the caller's folder.
    """
    flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    path, colon, rest = value.partition(":")
    if not path.startswith("/"):
        return word
    found = setup.paths.find_host(posixpath.join(cwd, path))
    if found is None or (not os.path.lexists(found) and not os.path.isdir(os.path.dirname(found))):
        return word
    return f"{flag}{equals}{found}{colon}{rest}"


def _find_known_image(word: str, request: Request, setup: BridgeSetup) -> str:
    """Return the path of an image that `image list` would show, or of the kernel's own. Raises PolicyError for any other."""
    from ..config import ApptainerConfig, load_config

    places = find_places()
    own = os.path.realpath(setup.instance.image)
    if word in (THIS, "this"):
        return own
    inside = setup.paths.find_host(posixpath.join(request.cwd, word)) if "://" not in word else None
    path = os.path.realpath(inside or find_image(places, word if "://" in word else posixpath.join("/", word)))
    folders = find_image_dirs(places, ApptainerConfig(config=load_config()).image_dirs, os.environ)
    is_pulled = "://" in word
    if path == own or is_pulled or any(path.startswith(os.path.realpath(folder) + "/") for folder in folders):
        return path
    error = refuse(f"inspect {word}", setup.level, "it only shows images that `%apptainer images` lists")
    raise PolicyError(error.message, hint=f"{error.hint}; or add the image's folder to `ApptainerConfig.image_dirs`")
