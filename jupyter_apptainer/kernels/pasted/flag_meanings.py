"""What each flag of the engine means for a kernel: a table of functions that fill in the fields of its configuration."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Mapping

from ..fields import Problems, join_words, split_words
from ..resource_field import parse_resources
from .reading import Reading
from .words import Word

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _take_binds(reading: Reading, value: str, word: Word) -> None:
    options = re.split(r"(?<!\\),", value)
    binds: list[str] = []
    for option in options:
        if binds and (option in ("ro", "rw") or option.startswith(("image-src=", "id="))):
            binds[-1] += f",{option}"
        elif option:
            binds.append(option)
        else:
            reading.remarks.error(f"{value}: there is an empty path between commas", "remove the comma", word.line)
    for bind in binds:
        _take_bind(reading, bind, word)


def _take_bind(reading: Reading, bind: str, word: Word) -> None:
    source, *rest = split_words(bind)
    path = reading.make_path(source, word)
    if len(rest) > 1 and re.search(r"(image-src|id)=", rest[1]):
        reading.append("extra_flags", f"--bind={bind}")
        return
    if len(rest) > 2 or (len(rest) == 2 and rest[1] not in ("ro", "rw")) or (rest and not rest[0].startswith("/")):
        reading.remarks.error(f"{bind} is not SRC, SRC:DEST or SRC:DEST:ro with an absolute DEST", "", word.line)
        return
    if not rest and not source.startswith(("/", "${")):
        reading.remarks.error(
            f"{bind} is relative, so it needs a destination", f"write {path}, or {bind}:/DEST", word.line
        )
    reading.check_exists(path, word, "the folder to bind")
    if rest[1:] == ["ro"]:
        reading.append("binds", join_words(path, rest[0], "ro"))
    else:
        reading.append("binds", join_words(path, *rest[:1]))


def _take_mount(reading: Reading, value: str, word: Word) -> None:
    fields = {key: text for key, _, text in (part.partition("=") for part in _split_csv(value))}
    source = fields.get("source", fields.get("src", ""))
    target = fields.get("destination", fields.get("dst", fields.get("target", "")))
    known = {"type", "source", "src", "destination", "dst", "target", "ro", "readonly"}
    if fields.get("type") != "bind" or not source or not target or set(fields) - known:
        reading.append("extra_flags", f"--mount={value}")
        return
    words = [source, target] + (["ro"] if {"ro", "readonly"} & set(fields) else [])
    _take_bind(reading, join_words(*words), word)


def _take_overlays(reading: Reading, value: str, word: Word) -> None:
    for part in value.split(","):
        is_read_only = part.endswith(":ro")
        path = reading.make_path(part.removesuffix(":ro").removesuffix(":rw"), word)
        reading.check_exists(path, word, "the overlay")
        reading.append("overlays", join_words(path, *(["ro"] if is_read_only else [])))


def _take_env(reading: Reading, value: str, word: Word) -> None:
    for name, content in _split_env(value):
        if content is None:
            text = f"--env {name} has no value"
            hint = f"write --env {name}=VALUE"
            if NAME.fullmatch(name):
                if name in reading.exported:
                    hint += "; or leave the flag out: the script exports the variable, so the container has it"
                elif name in reading.variables:
                    reading.append("inherit_env", name)
                    hint += f"; it is set here, so the kernel would inherit it (`--inherit-env {name}`)"
                reading.remarks.error(text, hint, word.line)
            else:
                reading.remarks.error(
                    f"--env {value}: {name} is not NAME=VALUE", "quote a value that has commas", word.line
                )
        elif not NAME.fullmatch(name):
            reading.remarks.error(
                f"--env {value}: {name!r} cannot be the name of a variable", "write NAME=VALUE", word.line
            )
        elif content == f"${{{name}}}" and word.unknown == (content,):
            reading.append("inherit_env", name)
        elif not (
            word.unknown and any(written in content for written in word.unknown) and reading.explain_unknown(word)
        ):
            reading.set_env(name, content)


def _split_env(value: str) -> list[tuple[str, str | None]]:
    """As the engine does: a value with one equals sign may have commas, otherwise they begin a further variable."""
    parts = [value.strip('"')] if value.count("=") == 1 else _split_csv(value)
    pairs = (part.partition("=") for part in parts)
    return [(name, content if equals else None) for name, equals, content in pairs]


def _split_csv(text: str) -> list[str]:
    try:
        return next(csv.reader([text]), [])
    except csv.Error:
        # A line break outside quotes.
        return [text]


def _take_env_file(reading: Reading, value: str, word: Word) -> None:
    path = os.path.join(reading.cwd, value)
    try:
        with open(path, encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reading.remarks.error(f"the file {path} cannot be read: {error}", "correct the path", word.line)
        return
    for line in lines:
        name, equals, content = line.strip().removeprefix("export ").partition("=")
        if equals and NAME.fullmatch(name) and not re.search(r"[$`]", content):
            reading.set_env(name, content.strip("\"'"))
        elif line.strip() and not line.lstrip().startswith("#"):
            reading.remarks.error(
                f"{path}: {name} is for a shell to work out", "give the variable with --env", word.line
            )


def _take_home(reading: Reading, value: str, word: Word) -> None:
    source, _, destination = value.partition(":")
    home = reading.variables.get("HOME", "")
    if destination and destination != home:
        reading.remarks.note(f"the home folder is {home} in the kernel, and not {destination}", line=word.line)
    if os.path.normpath(source) == os.path.normpath(home or "/"):
        return
    path = reading.make_path(source, word)
    reading.check_exists(path, word, "the home folder")
    reading.config["home"] = path


def _take_network(reading: Reading, value: str, word: Word) -> None:
    reading.network = value


def _take_pwd(reading: Reading, value: str, word: Word) -> None:
    reading.remarks.note(f"a kernel's working folder is the notebook's, and not {value}", line=word.line)


def _take_app(reading: Reading, value: str, word: Word) -> None:
    reading.remarks.error(
        f"--app {value} is left out: its environment does not reach a program that joins an instance",
        "name the app's program in the kernel's command: `--command`",
        word.line,
    )


def _take_tmpfs(reading: Reading, value: str, word: Word) -> None:
    reading.append("overlays", "tmpfs")


def _take_workdir(reading: Reading, value: str, word: Word) -> None:
    reading.remarks.note("--workdir is left out: a kernel's /tmp is private and on disk anyway", line=word.line)


def _take_limit(name: str, read: Callable[[str], object]) -> Handler:
    def take(reading: Reading, value: str, word: Word) -> None:
        problems = Problems()
        try:
            limit = read(value)
        except ValueError:
            limit = value
        parse_resources("resources", {name: limit}, problems)
        if problems.lines:
            reading.remarks.error("; ".join(problems.lines), "correct the limit, or leave it out", word.line)
            return
        limits = reading.config.setdefault("resources", {})
        assert isinstance(limits, dict)
        limits[name] = limit

    return take


def _read_memory(value: str) -> str | int:
    return int(value) if value.isdigit() else value.upper()


def _setter(name: str, value: object) -> Handler:
    def take(reading: Reading, _: str, word: Word) -> None:
        reading.config[name] = value

    return take


def _take_contain(reading: Reading, value: str, word: Word) -> None:
    reading.config.setdefault("isolation", "contain")


def _take_compat(reading: Reading, value: str, word: Word) -> None:
    reading.config["isolation"] = "containall"
    reading.append("overlays", "tmpfs")


def _take_net(reading: Reading, value: str, word: Word) -> None:
    reading.network = reading.network or "bridge"


Handler = Callable[[Reading, str, Word], None]

HANDLERS: Mapping[str, Handler] = {
    "nv": _setter("nv", True),
    "rocm": _setter("rocm", True),
    "bind": _take_binds,
    "mount": _take_mount,
    "overlay": _take_overlays,
    "writable-tmpfs": _take_tmpfs,
    "env": _take_env,
    "env-file": _take_env_file,
    "home": _take_home,
    "no-home": _setter("home", "none"),
    "contain": _take_contain,
    "containall": _setter("isolation", "containall"),
    "compat": _take_compat,
    "memory": _take_limit("memory", _read_memory),
    "cpus": _take_limit("cpus", float),
    "pids-limit": _take_limit("pids", int),
    "net": _take_net,
    "network": _take_network,
    "pwd": _take_pwd,
    "cwd": _take_pwd,
    "app": _take_app,
    "workdir": _take_workdir,
}
