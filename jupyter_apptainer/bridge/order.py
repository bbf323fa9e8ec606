"""From a request to the command that will run on the host, or to the error that refuses it. Nothing is started here.

Under `read` a command runs in `/`, with words from the list in `allowed` and paths that were looked up on the host: no word of the
container's becomes a path. Under `full` it runs in the caller's folder, and the container's paths become the host's.
"""

from __future__ import annotations

import os
import posixpath
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..engine.command import Command, is_secret_name, redact_argv, returns_nothing
from ..engine.environment import build_engine_environment, is_bending
from ..engine.locate import build_flags, build_wrapper, run_flags
from ..errors import BridgeError, PolicyError, SpecError
from ..images.catalogue import find_image, find_image_dirs
from ..places import find_places
from .allowed import check_allowed, refuse
from .grammar import Line, read_line
from .model import BridgeSetup
from .request import Request

THIS = "instance://this"
# Python puts the working directory first in its search path; a module there is the container's to write.
_PROGRAM = (
    "import sys\nif sys.path[:1] == ['']: del sys.path[0]\n"
    "from jupyter_apptainer.cli.main import main\nsys.exit(main(sys.argv[1:]))"
)
_HARMLESS_GLOBALS = frozenset({"-q", "--quiet", "-s", "--silent", "--nocolor", "--version"})
_RUNNING = (("exec",), ("run",), ("test",), ("instance", "start"), ("instance", "run"))
# Behind its image come a program and its words, which are the container's own business.
_WITH_PROGRAM = frozenset({"exec", "run", "test"})
_DRAWING = frozenset({"build", "pull", "push"})
_BODY_KINDS = ("--dockerfile", "--environment", "--requirements")


@dataclass(frozen=True)
class Order:
    """command: what will run. program: "engine", or "own" for a command of ours. value_key: where in its JSON the value is; None for
    text. body: a file to be written before and removed afterwards, with the request's text in it; then that is not standard input."""

    command: Command[None]
    program: Literal["engine", "own"]
    value_key: str | None = None
    body: Path | None = None

    @property
    def draws(self) -> bool:
        """It shows its progress on a terminal, and prints nothing that anybody would want apart from that."""
        return self.program == "engine" and not _DRAWING.isdisjoint(self.command.argv[:4])

    def render(self) -> str:
        """The command line for people and logs, without secrets."""
        if self.program == "engine":
            return self.command.render()
        return shlex.join(["jupyter-apptainer", *redact_argv(self.command.argv[3:])])


def build_order(request: Request, setup: BridgeSetup, environ: Mapping[str, str], *, token: str) -> Order:
    """Decide what runs. environ: the worker's variables. token: makes the name of a body's file unique.

    Raises PolicyError for what the level does not admit, SpecError or BridgeError for what cannot be.
    """
    line = read_line(request.words)
    if setup.level != "full":
        return _build_reading(request, line, setup, environ)
    cwd = _find_cwd(request, setup)
    if line.words[:1] == ("shell",):
        raise SpecError(
            "`shell` needs a terminal",
            hint="feed a script to the image: a cell that begins with `%%apptainer exec IMAGE sh`",
        )
    if line.words[:1] == ("build",) and request.stdin is not None:
        return _build_building(request, line, setup, environ, cwd, token)
    words = _translate(line, request, setup)
    return _finish(replace(line, words=tuple(words)), request, setup, environ, cwd)


def _build_reading(request: Request, line: Line, setup: BridgeSetup, environ: Mapping[str, str]) -> Order:
    if request.stdin is not None:
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
    return _finish(line, request, setup, environ, "/")


def _finish(line: Line, request: Request, setup: BridgeSetup, environ: Mapping[str, str], cwd: str) -> Order:
    key = line.value_key
    wants_value = key is not None and request.wants_value
    words = line.words
    if wants_value and not {"--json", "-j"} & set(words):
        words = (*words, "--json")
    if line.program == "own":
        command = _build_own(words, request.stdin, environ, cwd)
    else:
        wrapper = build_wrapper() if words[:1] == ("build",) else ()
        command = Command(
            (*wrapper, setup.engine.path, *line.globals, *_add_needed(words, setup)),
            build_engine_environment(clean_environment(environ)),
            returns_nothing,
            f"run `{' '.join(words[:2])}`",
            timeout_s=None,
            stdin=request.stdin,
            cwd=cwd,
        )
    return Order(command, line.program, key if wants_value else None)


# A build that is stopped stops its engine, which takes as long as the ladder may, and removes its folders.
_PATIENCE_S = 30.0


def _build_own(words: Sequence[str], stdin: str | None, environ: Mapping[str, str], cwd: str) -> Command[None]:
    return Command(
        (sys.executable, "-c", _PROGRAM, *words),
        {**clean_environment(environ), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"},
        returns_nothing,
        f"run `{' '.join(words[:2])}`",
        timeout_s=None,
        stdin=stdin,
        cwd=cwd,
        patience_s=_PATIENCE_S,
    )


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the server's variables without its tokens: a program in an image would see them. The engine's own stay."""
    return {
        name: value
        for name, value in environ.items()
        if not is_secret_name(name) or (name.startswith(("APPTAINER_", "SINGULARITY_")) and not is_bending(name))
    }


def _find_cwd(request: Request, setup: BridgeSetup) -> str:
    found = setup.paths.find_host(request.cwd)
    if found is None or not os.path.isdir(found):
        raise BridgeError(
            f"the working directory {request.cwd!r} is in the image, and the host has no such folder",
            hint=f"change to the notebook's: `%cd {setup.paths.cwd}`",
        )
    return found


def _translate(line: Line, request: Request, setup: BridgeSetup) -> list[str]:
    """Return the words with the host's paths, up to the program that runs inside an image."""
    words = [_use_this(word, setup) for word in line.words]
    if line.program == "own":
        return [translate_path(word, request.cwd, setup) for word in words]
    last = _find_image(words) if words[0] in _WITH_PROGRAM else len(words)
    return [translate_path(word, request.cwd, setup) for word in words[: last + 1]] + words[last + 1 :]


def _find_image(words: Sequence[str]) -> int:
    """Return the position of the image: the first word that can be one. The value of a flag is none where a file of that name is not there."""
    for index in range(1, len(words)):
        word = words[index]
        if not word.startswith("-") and (not _may_be_value(words[index - 1]) or "://" in word or word.endswith(".sif")):
            return index
    return len(words)


def _may_be_value(previous: str) -> bool:
    """Say whether the word behind this one may be its value. A flag that is known to have none answers for itself."""
    return previous.startswith("-") and "=" not in previous and previous not in _NO_VALUE


_NO_VALUE = frozenset(
    [
        "--nv",
        "--nvccli",
        "--rocm",
        "-c",
        "--contain",
        "-C",
        "--containall",
        "-e",
        "--cleanenv",
        "-f",
        "--fakeroot",
        "-i",
        "--ipc",
        "-p",
        "--pid",
        "--no-home",
        "--no-init",
        "--no-privs",
        "--no-umask",
        "--no-eval",
        "--writable",
        "-w",
        "--writable-tmpfs",
        "--userns",
        "-u",
        "--uts",
        "--unsquash",
        "--compat",
        "--underlay",
        "--no-https",
        "--nohttps",
        "--net",
        "-n",
        "--disable-cache",
        "--keep-privs",
        "--allow-setuid",
        "--sharens",
        "--no-pid",
    ]
)


def _use_this(word: str, setup: BridgeSetup) -> str:
    return f"instance://{setup.instance.name}" if word == THIS else word


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


def _add_needed(words: Sequence[str], setup: BridgeSetup) -> tuple[str, ...]:
    """Add the flags without which nothing runs on this host."""
    for command in _RUNNING:
        if tuple(words[: len(command)]) == command:
            needed = [flag for flag in run_flags(setup.engine) if flag not in words]
            return (*command, *needed, *words[len(command) :])
    if words[:1] == ("build",):
        return ("build", *(flag for flag in build_flags(setup.engine) if flag not in words), *words[1:])
    return tuple(words)


def _build_building(
    request: Request, line: Line, setup: BridgeSetup, environ: Mapping[str, str], cwd: str, token: str
) -> Order:
    """`%%apptainer build`: the cell is the recipe. It lies in the caller's folder, from which its relative paths start."""
    kinds = [kind for kind in _BODY_KINDS if kind in line.words]
    if len(kinds) > 1:
        raise SpecError(f"a cell is one recipe: {' and '.join(kinds)} exclude each other")
    body = Path(cwd, f".apptainer-cell-{token}{'.yml' if kinds == ['--environment'] else '.txt'}")
    words = [word for word in _translate(line, request, setup) if word not in kinds]
    kind = kinds[0] if kinds else "--def"
    command = _build_own(("image", *words, kind, str(body)), None, environ, cwd)
    return Order(command, "own", body=body)


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
