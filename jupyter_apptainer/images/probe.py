"""Ask an image what a kernel would find in it: which Python, which ipykernel, which files its start opens.

One `exec` of the image's Python answers everything; the answer is kept on disk by the identity of the image, so that a
start pays for it once for each image.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..engine.command import Command, Completed
from ..engine.diagnose import diagnose
from ..engine.environment import build_engine_environment
from ..engine.locate import EngineInfo
from ..engine.options import Bind, ContainerOptions, build_exec
from ..engine.runner import Runner
from ..errors import CommandError, ImageLacksPython, LaunchError, ProgramNotFound
from ..places import Places, make_private_dir, write_private_file
from .identity import ImageIdentity, check_image

# Neither the user's home nor their working folder has a say in what is in the image.
PROBE_OPTIONS = ContainerOptions(home="none", isolation="contain")
# A cold image on a busy network file system takes its time; a start waits as long.
PROBE_TIMEOUT_S = 120.0

# Where a container sees the packages that are lent to it: beside the engine's own /.singularity.d.
LENT_DIR = "/.jupyter-apptainer/ipykernel"

_FORMAT = 6
_BUNDLE = "modules"
# Of some 11 MB each. An image whose bundle is gone is asked again.
_MAX_BUNDLES = 20
_MARKER = "jupyter-apptainer-probe:"
_SCRIPT = Path(__file__).with_name("probe_script.py")
_MISSING = re.compile(r"executable file not found in \$PATH|stat \S+: no such file or directory")
_UNREADABLE = re.compile(r"input/output error", re.IGNORECASE)
_PYTHON = re.compile(r"/(python|pypy)(\d+(\.\d+)?)?t?$")
_LIST_PYTHONS = 'IFS=:; for folder in $PATH; do for file in "$folder"/python* "$folder"/pypy*; do [ -x "$file" ] && echo "$file"; done; done; true'

# `-W` and `-X` take the rest of the word as their value, or else the next word.
_INTERPRETER_OPTION = re.compile(r"-(?:[^-cmWX]+|[^-cmWX]*[WX].*)|--check-hash-based-pycs")
_OPTION_WITH_VALUE = re.compile(r"-[^-cmWX]*[WX]|--check-hash-based-pycs")


@dataclass(frozen=True)
class ImageProbe:
    """What a kernel would find in an image.

    program: path of the command's program in the container. python, python_version, implementation: None where the
    command is not a Python. ipykernel, debugpy, psutil, jupyter_client: versions, None where they are not installed.
    problem: why ipykernel cannot be imported although it is there. start_files: what a start opens, in the order of
    first use, absolute paths in the container. duration_s: how long the probe took.
    abi, libc, machine: which compiled packages would fit, as in "cp311", "glibc2.36", "x86_64"; abi is None for other
    Pythons than CPython. packages: what is installed, asked for only where there is no ipykernel. lent: the folder of
    the host with the ipykernel that is lent to this image; None where it has its own, or none. is_start_free: an
    instance of the image runs nothing of its own when it starts, so that something of ours can take that place. bundle: a file of
    the host with the code of what a start imports. plain_folders: where it comes from, without folders that are reached through links.
    """

    program: str
    python: str | None = None
    python_version: str | None = None
    implementation: str | None = None
    ipykernel: str | None = None
    debugpy: str | None = None
    psutil: str | None = None
    jupyter_client: str | None = None
    problem: str | None = None
    abi: str | None = None
    libc: str | None = None
    machine: str | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    lent: str | None = None
    start_files: tuple[str, ...] = ()
    plain_folders: tuple[str, ...] = ()
    is_start_free: bool = False
    bundle: str | None = None
    duration_s: float = 0.0

    @property
    def has_debugger(self) -> bool:
        """The kernel can be debugged: ipykernel 6 brought that, and needs debugpy for it."""
        return self.ipykernel is not None and self.debugpy is not None and _version_tuple(self.ipykernel) >= (6,)

    @property
    def has_curve(self) -> bool:
        """The kernel can encrypt its connection: ipykernel 7.3 brought CurveZMQ."""
        return self.ipykernel is not None and _version_tuple(self.ipykernel) >= (7, 3)

    @property
    def can_fork(self) -> bool:
        """Kernels of the image can come from a fork server, which is its instance's main process."""
        is_fit = self.implementation == "CPython" and _version_tuple(self.python_version or "") >= (3, 8)
        return is_fit and self.is_start_free and self.ipykernel is not None and self.problem is None


def is_python_command(command: Sequence[str]) -> bool:
    """Say whether a kernel's command starts a Python."""
    return os.path.basename(command[0]).startswith(("python", "pypy"))


def count_interpreter_words(command: Sequence[str]) -> int:
    """Return how many words of `python -I -X dev -m ipykernel_launcher` are the interpreter and its own options.

    The next one is `-m`, `-c`, `-`, a script, or `-m` and `-c` glued to further options, as in `-Im`.
    """
    count = 1
    while count < len(command) and _INTERPRETER_OPTION.fullmatch(command[count]):
        count += 2 if _OPTION_WITH_VALUE.fullmatch(command[count]) else 1
    return min(count, len(command))


def probe_image(
    engine: EngineInfo,
    image: str,
    command: Sequence[str],
    places: Places,
    environ: Mapping[str, str],
    *,
    options: ContainerOptions = PROBE_OPTIONS,
    lent: str | None = None,
    is_fresh: bool = False,
) -> ImageProbe:
    """Return what a kernel with `command` would find in `image`: from the cache, else by running it (a second or so).

    options: binds and overlays that bring the program; overlays are mounted read-only. lent: a folder of the host with
    packages for what the image lacks. is_fresh: leave the cache alone.
    Raises what `check_image` and `diagnose` find; ImageLacksPython and ProgramNotFound where the program does not exist.
    A missing ipykernel is no error here.
    """
    identity = check_image(image)
    options = _add_lent(options, lent)
    if not is_fresh:
        known = _load(engine, identity, command, places, options)
        if known:
            return known
    bundle = _bundle_path(places, _key(engine, identity, command, options))
    with _make_bundle_folder(bundle) as folder:
        arguments = (LENT_DIR,) if lent else ()
        probe, folders = _run(engine, image, command, environ, options, arguments, folder)
        probe = replace(probe, lent=lent, bundle=_keep_bundle(folder, bundle))
    _save(engine, identity, command, places, options, probe, folders)
    return probe


def load_probe(
    engine: EngineInfo,
    image: str,
    command: Sequence[str],
    places: Places,
    *,
    options: ContainerOptions = PROBE_OPTIONS,
    lent: str | None = None,
) -> ImageProbe | None:
    """Return what an earlier probe of exactly this image found, None where there was none. Raises what `check_image` does."""
    return _load(engine, check_image(image), command, places, _add_lent(options, lent))


def _add_lent(options: ContainerOptions, lent: str | None) -> ContainerOptions:
    return replace(options, binds=(*options.binds, Bind(lent, LENT_DIR, "ro"))) if lent else options


def load_known_probes(places: Places) -> dict[str, ImageProbe]:
    """Return what earlier probes found in images as they are, by `ImageIdentity.key`. Starts nothing.

    Of several, for commands of their own, one that found an ipykernel wins, or else a Python, and of these the latest.
    Layers that a kernel adds are no part of the image, so probes with any are left out.
    """
    found: dict[str, tuple[tuple[bool, bool, float], ImageProbe]] = {}
    for path in places.probes.glob("image-*.json"):
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            version, image, _, _, _, options, _ = json.loads(record["key"])
            if version != _FORMAT or options != repr(PROBE_OPTIONS):
                continue
            values = {field.name: record["probe"][field.name] for field in fields(ImageProbe)}
            rank = (bool(values["ipykernel"]), bool(values["python"]), path.stat().st_mtime)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if image not in found or rank > found[image][0]:
            found[image] = rank, _build(values)
    return {image: probe for image, (_, probe) in found.items()}


# --- running


def _run(
    engine: EngineInfo,
    image: str,
    command: Sequence[str],
    environ: Mapping[str, str],
    options: ContainerOptions,
    arguments: Sequence[str],
    bundle_folder: str | None,
) -> tuple[ImageProbe, list[str]]:
    variables = {"PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    if bundle_folder and not any(bind.destination.startswith("/tmp") for bind in options.binds):
        variables["JPA_BUNDLE"] = f"/tmp/{_BUNDLE}"
        options = replace(options, binds=(*options.binds, Bind(bundle_folder, "/tmp")))
    env = build_engine_environment(environ, variables)
    options = replace(options, overlays=tuple(overlay.removesuffix(":ro") + ":ro" for overlay in options.overlays))

    def build(*argv: str) -> Command[Completed]:
        return build_exec(engine, image, argv, env, options=options, cwd="/", timeout_s=PROBE_TIMEOUT_S)

    if not is_python_command(command):
        return _find_program(build("sh", "-c", 'command -v -- "$1"', "sh", command[0]), command[0], image), []
    asked = build(*command[: count_interpreter_words(command)], "-c", _SCRIPT.read_text(encoding="utf-8"), *arguments)
    completed = Runner().complete(asked)
    answer = completed.stdout.rpartition("\n" + _MARKER)[2] if _MARKER in completed.stdout else ""
    if answer:
        return _parse_answer(answer, completed.duration_s)
    error = _explain(asked, completed, image)
    if completed.returncode == 0 or isinstance(error, ProgramNotFound):
        found = _list_pythons(build("sh", "-c", _LIST_PYTHONS))
        raise ImageLacksPython(
            f"there is no {command[0]} in the image {image}"
            if completed.returncode
            else f"the program {command[0]} in the image {image} is not a Python",
            hint=f"the image has {', '.join(found)}: name one of them in the kernel's command"
            if found
            else "use an image with Python and ipykernel, or name the kernel's program in the field command",
            command=asked.render(),
        )
    raise error


def _explain(asked: Command[Completed], completed: Completed, image: str) -> Exception:
    # The script would fill the screen: the program's name says enough.
    words = tuple(word for word in asked.argv if "\n" not in word)
    shown = Command(words, asked.env, asked.parse, asked.title).render()
    error = diagnose(completed, title=asked.title, subject=image, shown=shown)
    text = completed.stderr
    if type(error) is CommandError and _MISSING.search(text) and not _UNREADABLE.search(text):
        return ProgramNotFound(error.message, command=shown, returncode=completed.returncode, log_tail=error.log_tail)
    return error


def _find_program(asked: Command[Completed], program: str, image: str) -> ImageProbe:
    completed = Runner().complete(asked)
    if completed.returncode == 0:
        return ImageProbe(completed.stdout.strip() or program, duration_s=completed.duration_s)
    error = _explain(asked, completed, image)
    if isinstance(error, ProgramNotFound):
        # An image without a shell cannot be asked; the start will tell.
        return ImageProbe(program, duration_s=completed.duration_s)
    if completed.returncode in (1, 127):
        raise ProgramNotFound(
            f"there is no {program} in the image {image}", hint="correct the field command, or use another image"
        )
    raise error


def _list_pythons(asked: Command[Completed]) -> list[str]:
    completed = Runner().complete(asked)
    lines = completed.stdout.splitlines() if completed.returncode == 0 else []
    return [line for line in dict.fromkeys(lines) if _PYTHON.search(line)]


def _parse_answer(answer: str, duration_s: float) -> tuple[ImageProbe, list[str]]:
    try:
        record = json.loads(answer.split("\n", 1)[0])
        folders = record.pop("folders")
        return _build({**record, "program": record["python"], "duration_s": duration_s}), folders
    except (ValueError, KeyError, TypeError) as error:
        raise LaunchError(f"unexpected answer of the probe: {error}", hint="please report this") from error


def _build(values: Mapping[str, Any]) -> ImageProbe:
    """Make a probe of what JSON gave: its lists are tuples."""
    lists = {name: tuple(values[name]) for name in ("start_files", "plain_folders")}
    return ImageProbe(**{**values, **lists})


def _version_tuple(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


# --- keeping


def _load(
    engine: EngineInfo, identity: ImageIdentity, command: Sequence[str], places: Places, options: ContainerOptions
) -> ImageProbe | None:
    key = _key(engine, identity, command, options)
    try:
        record: dict[str, Any] = json.loads(_path(places, key).read_text(encoding="utf-8"))
        if record["key"] != key or record["folders"] != _stat_folders(identity, record["folders"]):
            return None
        probe = {field.name: record["probe"][field.name] for field in fields(ImageProbe)}
        if probe["bundle"] and not os.path.isfile(probe["bundle"]):
            return None
        return _build(probe)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _save(
    engine: EngineInfo,
    identity: ImageIdentity,
    command: Sequence[str],
    places: Places,
    options: ContainerOptions,
    probe: ImageProbe,
    folders: Sequence[str],
) -> None:
    key = _key(engine, identity, command, options)
    record = {"key": key, "folders": _stat_folders(identity, folders), "probe": asdict(probe)}
    try:
        make_private_dir(places.probes)
        write_private_file(_path(places, key), json.dumps(record))
    except OSError:
        # A cache that cannot be written only costs time.
        return


def _key(engine: EngineInfo, identity: ImageIdentity, command: Sequence[str], options: ContainerOptions) -> str:
    layers = [f"{overlay}:{_mtime_ns(overlay.removesuffix(':ro'))}" for overlay in options.overlays]
    words = list(command[: count_interpreter_words(command)])
    return json.dumps([_FORMAT, identity.key, words, engine.flavour, engine.version_text, repr(options), layers])


def _path(places: Places, key: str) -> Path:
    return places.probes / f"image-{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def _bundle_path(places: Places, key: str) -> Path:
    return _path(places, key).with_suffix(".modules")


@contextmanager
def _make_bundle_folder(bundle: Path) -> Iterator[str | None]:
    """Give a folder into which the image's Python may write what it has loaded; None where there is no place for one."""
    try:
        make_private_dir(bundle.parent)
        folder = tempfile.mkdtemp(prefix="bundle-", dir=bundle.parent)
    except OSError:
        yield None
        return
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _keep_bundle(folder: str | None, bundle: Path) -> str | None:
    """Move it to where it stays."""
    source = Path(folder or os.devnull, _BUNDLE)
    if not source.is_file() or source.is_symlink():
        return None
    try:
        source.chmod(0o600)
        source.replace(bundle)
        by_age = sorted(bundle.parent.glob("image-*.modules"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in by_age[_MAX_BUNDLES:]:
            path.unlink()
    except OSError:
        return None
    return str(bundle)


def _stat_folders(identity: ImageIdentity, folders: Sequence[str] | Mapping[str, int]) -> dict[str, int]:
    """Note when the package folders of a sandbox changed: an installation into it does not touch its top folder."""
    if identity.kind != "sandbox":
        return {}
    return {folder: _mtime_ns(identity.real_path + folder) for folder in folders}


def _mtime_ns(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
